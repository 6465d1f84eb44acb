"""Model families: one module each, chosen by ``model_type`` in the checkpoint's ``config.json``."""

from __future__ import annotations

import json
from pathlib import Path

from ..errors import CheckpointError
from . import lychee_mini
from .family import Checkpoint, GoldenPair, Piece

__all__ = ["Checkpoint", "GoldenPair", "Piece", "load_checkpoint"]

_BUNDLED = Path(__file__).parent.parent / "checkpoints"
_LOADERS = {"lychee_mini": lychee_mini.load}


def load_checkpoint(checkpoint: str) -> Checkpoint:
    """Load a checkpoint into torch modules that are ready to export.

    Args:
        checkpoint: Name of a bundled checkpoint ("lychee-mini") or path of a checkpoint folder.

    Raises:
        CheckpointError: The folder or a file is missing or damaged, or the family is unknown.
    """
    bundled = _BUNDLED / checkpoint.replace("-", "_")
    folder = bundled if bundled.is_dir() else Path(checkpoint)
    config_path = folder / "config.json"
    try:
        config = json.loads(config_path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        names = ", ".join(sorted(path.name.replace("_", "-") for path in _BUNDLED.iterdir() if path.is_dir()))
        raise CheckpointError(
            f"no checkpoint {checkpoint!r}: {config_path} does not exist. Give a folder with a config.json, or one "
            f"of the bundled names: {names}"
        ) from error
    except ValueError as error:
        raise CheckpointError(f"{config_path} is not JSON: {error}") from error
    model_type = config.get("model_type")
    if model_type not in _LOADERS:
        raise CheckpointError(
            f"{config_path}: unknown model_type {model_type!r}; this exporter knows {', '.join(sorted(_LOADERS))}"
        )
    return _LOADERS[model_type](folder, config)

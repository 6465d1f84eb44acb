"""The names that a checkpoint goes by: its own, and those of what it was made from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from huggingface_hub import metadata_load

from lychee_export.checkpoint.json_files import read_object
from lychee_export.checkpoint.layout import ADAPTER_CONFIG

__all__ = ["read_names"]

_BASE = "base_model"


def read_names(folder: Path) -> tuple[str, ...]:
    """Read what the files say: config.json, the adapter's configuration, and ``base_model`` in README.md.

    Raises:
        CheckpointError: A JSON file is damaged.
    """
    names = [
        read_object(folder / "config.json").get("_name_or_path"),
        read_object(folder / ADAPTER_CONFIG).get("base_model_name_or_path"),
        *_read_card(folder / "README.md"),
    ]
    return tuple(name for name in names if isinstance(name, str) and name)


def _read_card(path: Path) -> list[Any]:
    try:
        card = metadata_load(path) or {}
    except Exception:  # a model card is written by hand: what cannot be read says nothing
        return []
    bases = card.get(_BASE)
    return bases if isinstance(bases, list) else [bases]

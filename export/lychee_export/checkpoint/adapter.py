"""LoRA adapters: merging one into the weights of its base model, which peft does."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers.conversion_mapping import get_model_conversion_mapping

from lychee_export.checkpoint.layout import ADAPTER, ADAPTER_CONFIG
from lychee_export.checkpoint.weight_files import check_weights, weight_files
from lychee_export.errors import CheckpointError

__all__ = ["merge_adapter"]

_PREFIX = "base_model.model."
_FACTOR = ".lora_"
"""Between the name of a module and the name of what the adapter adds to it."""


def merge_adapter(model: Any, folder: Path) -> Any:
    """Merge an adapter into the weights of its base model.

    Args:
        model: The base model of transformers; its weights change.
        folder: The folder of the adapter.

    Returns:
        The model.

    Raises:
        CheckpointError: peft is not installed, the adapter's files are missing or damaged, or it does not fit the base
            model.
    """
    try:
        from peft import PeftConfig, PeftModel, set_peft_model_state_dict
    except ImportError as error:
        raise CheckpointError(
            f"{folder} holds a LoRA adapter ({ADAPTER_CONFIG}), and peft, which merges it into its base model, is not "
            "installed: pip install 'lychee-rerank-export[peft]'"
        ) from error
    check_weights(folder, ADAPTER)
    try:
        weights = _read(weight_files(folder, ADAPTER), model)
        config: Any = PeftConfig.from_pretrained(str(folder))
        # What the file has, by today's names: the patterns of an old config may fit other modules of today's model.
        config.target_modules = sorted({name.split(_FACTOR)[0] for name in weights if _FACTOR in name})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what counts is looked at below
            adapted = PeftModel(model, config)
            loaded: Any = set_peft_model_state_dict(adapted, {_PREFIX + name: each for name, each in weights.items()})
        unused = sorted(loaded.unexpected_keys)
        if unused:
            raise ValueError(f"{len(unused)} of its {len(weights)} tensors have no place there, such as {unused[0]}")
        return adapted.merge_and_unload(safe_merge=True)
    except Exception as error:  # peft raises whatever it likes for what does not fit
        raise CheckpointError(
            f"the adapter in {folder} does not fit its base model, a {type(model).__name__}: "
            f"{' '.join(str(error).split())[:300]}. Name the base that it was trained on with --base"
        ) from error


def _read(files: Sequence[Path], model: Any) -> dict[str, Tensor]:
    """Read an adapter's tensors, under the names of the model's modules in this version of transformers."""
    renamings = get_model_conversion_mapping(model)
    weights: dict[str, Tensor] = {}
    for path in files:
        read = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
        for name, value in read.items():
            today = name.removeprefix(_PREFIX)
            for renaming in renamings:
                today, _ = renaming.rename_source_key(today)
            weights[today] = value
    return weights

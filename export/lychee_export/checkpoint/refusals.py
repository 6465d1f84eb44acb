"""Checkpoints that cannot be read, told from their configuration: quantized, of a newer transformers, of own code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import transformers
from packaging.version import InvalidVersion, Version
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from lychee_export.errors import CheckpointError

__all__ = ["explain_unknown", "newer_transformers", "refuse_unreadable"]

_ROPE_TYPES = frozenset({*ROPE_INIT_FUNCTIONS, "default", "mrope"})
_CODE = "auto_map"


def refuse_unreadable(config: Mapping[str, Any], place: str) -> None:
    """Refuse a checkpoint whose config.json asks for what is not here.

    Args:
        config: The content of config.json.
        place: The path of config.json, named in messages.

    Raises:
        CheckpointError: The weights are quantized, or the rotary positions are of an unknown type.
    """
    quantization = config.get("quantization_config") or config.get("compression_config")
    if quantization:
        method = quantization.get("quant_method") or ("bitsandbytes" if _is_bitsandbytes(quantization) else "unknown")
        bits = quantization.get("bits") or quantization.get("w_bit")
        raise CheckpointError(
            f"{place}: the weights are quantized by {method}{f' to {bits} bits' if bits else ''} "
            "(quantization_config), which this exporter does not read. Take the original checkpoint, in float32, "
            "float16 or bfloat16, and quantize on the way with --precision w8 or w4"
        )
    for rope_type in _rope_types(config):
        if rope_type not in _ROPE_TYPES:
            raise CheckpointError(
                f"{place}: rotary positions of type {rope_type!r}; transformers {transformers.__version__} knows "
                f"{', '.join(sorted(_ROPE_TYPES))}.{explain_unknown(config) or ' Correct the type'}"
            )


def explain_unknown(config: Mapping[str, Any]) -> str:
    """Say why a model_type may be unknown: a sentence, or nothing."""
    if config.get(_CODE):
        return (
            f" The checkpoint brings Python code of its own ({_CODE}: {', '.join(map(str, config[_CODE].values()))}), "
            "which is never run here; only models that transformers itself has can be exported."
        )
    return newer_transformers(config)


def newer_transformers(config: Mapping[str, Any]) -> str:
    """Say that a newer transformers wrote a configuration, if one did: a sentence, or nothing."""
    written = config.get("transformers_version")
    try:
        newer = written is not None and Version(str(written)) > Version(transformers.__version__)
    except InvalidVersion:
        return ""
    if not newer:
        return ""
    return (
        f" config.json was written by transformers {written}, and {transformers.__version__} is installed: export with "
        f"transformers {written} or later, or take a checkpoint that an older one wrote."
    )


def _is_bitsandbytes(quantization: Mapping[str, Any]) -> bool:
    return bool(quantization.get("load_in_4bit") or quantization.get("load_in_8bit"))


def _rope_types(config: Mapping[str, Any]) -> Iterator[str]:
    for part in (config, config.get("text_config")):
        if isinstance(part, Mapping):
            for name in ("rope_parameters", "rope_scaling"):
                rope = part.get(name)
                if isinstance(rope, Mapping):
                    kind = rope.get("rope_type") or rope.get("type")
                    if isinstance(kind, str):
                        yield kind

"""What a checkpoint of Llama Nemotron must say of itself, so that its scores are those of NVIDIA's code.

That code comes with the checkpoint and is never run here. What it computes is computed by other means, for the classes
and settings below and for no others.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from lychee_export.checkpoint.source import CheckpointSource
from lychee_export.errors import CheckpointError
from lychee_export.families.heads import count_labels
from lychee_export.families.rotary import CHANGING_ROPE_TYPES

__all__ = ["check_classes", "check_labels", "check_language_model", "read_temperature"]

_POOLING = "avg"


def check_classes(source: CheckpointSource, architecture: str, code: Collection[str]) -> None:
    """Refuse another architecture, and Python code whose classes have other names than NVIDIA's.

    Args:
        source: The checkpoint.
        architecture: The only entry of ``architectures``.
        code: The classes that ``auto_map`` may name.

    Raises:
        CheckpointError: There is something else.
    """
    place = source.folder / "config.json"
    architectures = source.config.get("architectures")
    if architectures != [architecture]:
        raise CheckpointError(
            f"{place}: architectures is {architectures}, expected {[architecture]} for model_type "
            f"{source.config['model_type']!r}. Take a reranker; an embedding model gives no scores of pairs"
        )
    named = {
        str(reference).rpartition(".")[2]
        for value in (source.config.get("auto_map") or {}).values()
        for reference in (value if isinstance(value, list) else [value])
        if reference is not None
    }
    unknown = sorted(named - set(code))
    if unknown:
        raise CheckpointError(
            f"{place}: auto_map asks for the Python classes {unknown}, expected none but {sorted(code)}. The code of a "
            "checkpoint is never run here, and what other classes compute is not known. Take the checkpoint of NVIDIA, "
            "or one that was trained from it with the same classes"
        )


def check_labels(source: CheckpointSource) -> None:
    """Refuse a head of more or fewer labels than one.

    Raises:
        CheckpointError: It is one.
    """
    config = source.config
    labels = count_labels(config)
    if labels != 1:
        raise CheckpointError(
            f"{source.folder / 'config.json'}: the head has {labels} labels "
            f"({config.get('id2label') or 'no id2label'}), expected 1: a reranker has one logit for a pair. Take a "
            "checkpoint that was trained for ranking"
        )


def check_language_model(source: CheckpointSource, language: Mapping[str, Any], pooling: Any) -> None:
    """Refuse what the graph of the language model does not compute.

    Args:
        source: The checkpoint, named in messages.
        language: The part of config.json about the language model.
        pooling: How its states become one.

    Raises:
        CheckpointError: There is something of it.
    """
    place = source.folder / "config.json"
    if pooling != _POOLING:
        raise CheckpointError(
            f"{place}: pooling is {pooling!r}, expected {_POOLING!r}: the mean of all tokens' states. Other ways are "
            "not supported"
        )
    if language.get("is_causal"):
        raise CheckpointError(
            f"{place}: is_causal is True, expected False or nothing: these rerankers read in both directions. Take the "
            "config.json of the checkpoint's authors"
        )
    rope = language.get("rope_parameters") or language.get("rope_scaling") or {}
    kind = rope.get("rope_type") or rope.get("type")
    if kind in CHANGING_ROPE_TYPES:
        raise CheckpointError(
            f"{place}: rotary positions of the type {kind!r}; {' and '.join(CHANGING_ROPE_TYPES)} are not supported"
        )


def read_temperature(source: CheckpointSource) -> float:
    """Return what logits are divided by.

    Raises:
        CheckpointError: It is no positive number.
    """
    temperature = source.config.get("temperature", 1.0)
    if isinstance(temperature, bool) or not isinstance(temperature, int | float) or not temperature > 0:
        raise CheckpointError(
            f"{source.folder / 'config.json'}: temperature is {temperature!r}, expected a number above 0; correct it"
        )
    return float(temperature)

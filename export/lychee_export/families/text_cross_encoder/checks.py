"""What a checkpoint's files ask for that is not computed here."""

from __future__ import annotations

from collections.abc import Sequence

from lychee_export.checkpoint.refusals import explain_unknown
from lychee_export.checkpoint.source import CheckpointSource
from lychee_export.errors import CheckpointError
from lychee_export.families.heads import count_labels
from lychee_export.families.rotary import check_rotary

__all__ = ["check_config", "describe_activation"]

_ACTIVATIONS = ("Identity", "Sigmoid")


def check_config(source: CheckpointSource, expected: str, examples: Sequence[str]) -> str | None:
    """Refuse what is no reranker of one label or is computed otherwise.

    Args:
        source: The checkpoint.
        expected: The name of the class that is computed here.
        examples: Names of checkpoints that can be taken instead, for messages.

    Returns:
        The name of the activation that it asks for, if any.

    Raises:
        CheckpointError: It is.
    """
    config, place = source.config, source.folder / "config.json"
    architectures = config.get("architectures") or [expected]
    if architectures != [expected] or config.get("auto_map"):
        raise CheckpointError(
            f"{place}: architectures is {architectures}, expected {[expected]} for model_type "
            f"{config['model_type']!r}.{explain_unknown(config)} Take a reranker that transformers itself has, such as "
            f"{', '.join(examples)}"
        )
    labels = count_labels(config)
    if labels != 1:
        raise CheckpointError(
            f"{place}: the head has {labels} labels ({config.get('id2label') or 'no id2label'}), expected 1: a "
            "reranker has one logit for a pair. A classifier of several, such as one for entailment, gives no order; "
            "take a checkpoint that was trained for ranking"
        )
    positions = config.get("position_embedding_type") or "absolute"
    if positions != "absolute" or config.get("is_decoder"):
        raise CheckpointError(
            f"{place}: position_embedding_type is {positions!r} and is_decoder {bool(config.get('is_decoder'))}, "
            "expected 'absolute' and False; other models are not supported"
        )
    if config["model_type"] == "deberta-v2" and (
        not config.get("relative_attention") or config.get("conv_kernel_size")
    ):
        raise CheckpointError(
            f"{place}: relative_attention is {bool(config.get('relative_attention'))} and conv_kernel_size "
            f"{config.get('conv_kernel_size') or 0}, expected True and 0, as in DeBERTa v3; other kinds of DeBERTa are "
            "not supported"
        )
    check_rotary(config, str(place))
    return _read_activation(source)


def _read_activation(source: CheckpointSource) -> str | None:
    """Return the name of the activation that the checkpoint asks of sentence-transformers.

    Raises:
        CheckpointError: It is neither the identity nor the sigmoid.
    """
    named = (
        (source.config.get("sentence_transformers") or {}).get("activation_fn")
        or source.config.get("sbert_ce_default_activation_function")
        or source.read_json("config_sentence_transformers.json").get("activation_fn")
    )
    if named is None:
        return None
    module, _, name = str(named).rpartition(".")
    if not module.startswith("torch.") or name not in _ACTIVATIONS:
        raise CheckpointError(
            f"{source.folder}: sentence-transformers is to compute scores with the activation {named!r}, expected one "
            f"of {', '.join(f'torch.nn.{known}' for known in _ACTIVATIONS)}; if a score of the sigmoid is right, take "
            "the activation out of config.json"
        )
    return name


def describe_activation(activation: str | None) -> tuple[str, ...]:
    if activation != "Identity":
        return ()
    return (
        "the checkpoint's own scores are logits without an activation: here they are the field logits, and "
        "relevance_score is their sigmoid, in the same order",
    )

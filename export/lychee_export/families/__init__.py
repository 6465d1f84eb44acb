"""Model families: one module each, chosen by ``model_type`` in the checkpoint's ``config.json``."""

from __future__ import annotations

from lychee_export.checkpoint.lookup import find_checkpoint
from lychee_export.checkpoint.reading import Reading
from lychee_export.checkpoint.refusals import explain_unknown
from lychee_export.checkpoint.source import CheckpointSource
from lychee_export.contract.limits import Limits
from lychee_export.errors import CheckpointError
from lychee_export.families import (
    blip,
    clip,
    colbert,
    colvision,
    lychee_mini,
    nemotron,
    qwen3_reranker,
    qwen_vl,
    siglip,
    text_cross_encoder,
)
from lychee_export.families.family import Checkpoint, Family, ModelCard, Piece, Reference, round_scores

__all__ = [
    "FAMILIES",
    "Checkpoint",
    "Family",
    "ModelCard",
    "Piece",
    "Reference",
    "load_checkpoint",
    "round_scores",
]

FAMILIES: tuple[Family, ...] = (
    lychee_mini.FAMILY,
    colvision.FAMILY,
    qwen_vl.FAMILY,
    qwen3_reranker.FAMILY,
    clip.FAMILY,
    siglip.FAMILY,
    blip.FAMILY,
    colbert.FAMILY,
    text_cross_encoder.FAMILY,
    nemotron.FAMILY,
)


def load_checkpoint(
    checkpoint: str,
    limits: Limits | None = None,
    reading: Reading | None = None,
    *,
    weights: bool = True,
) -> Checkpoint:
    """Load a checkpoint into torch modules that are ready to export.

    Args:
        checkpoint: The name of a bundled checkpoint ("lychee-mini"), the path of a checkpoint folder, or "owner/name"
            of a model on the Hugging Face hub.
        limits: What the deployment admits. None takes the default limits.
        reading: How it is found and read. None takes what it says itself.
        weights: Whether to load the weights. Otherwise the modules have shapes and no values, and nothing large is
            downloaded or read.

    Raises:
        CheckpointError: The folder or a file is missing or damaged, the family is unknown, or there is an instruction
            or a prompt for a model that reads none.
    """
    source = find_checkpoint(checkpoint, reading)
    family = _choose(source)
    if source.reading.template is not None and not family.has_templates:
        raise CheckpointError(
            f"{checkpoint} is of the family {family.name}, which has no prompt to choose; leave --template out"
        )
    loaded = family.load(source.with_weights() if weights else source, limits or Limits())
    _check_instruction(loaded, source.reading.instruction)
    return loaded


def _choose(source: CheckpointSource) -> Family:
    """Return the family that a checkpoint is of.

    Raises:
        CheckpointError: It is of none.
    """
    model_type, architectures = source.config.get("model_type"), source.config.get("architectures") or []
    for family in FAMILIES:
        if family.claims(source):
            return family
    for family in FAMILIES:
        if model_type in family.model_types and (
            not family.architectures or any(name in family.architectures for name in architectures)
        ):
            return family
    known = "; ".join(
        f"{', '.join(family.model_types)} (such as {', '.join(family.checkpoints)})" for family in FAMILIES
    )
    raise CheckpointError(
        f"{source.folder / 'config.json'}: unknown model_type {model_type!r}; this exporter knows {known}."
        f"{explain_unknown(source.config)}"
    )


def _check_instruction(checkpoint: Checkpoint, instruction: str | None) -> None:
    if instruction is not None and checkpoint.card.spec.instruction is None:
        raise CheckpointError(
            f"{checkpoint.card.spec.model_id} reads no instruction, got {instruction!r}; leave --instruction out"
        )

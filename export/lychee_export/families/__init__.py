"""Model families: one module each, chosen by ``model_type`` in the checkpoint's ``config.json``."""

from __future__ import annotations

from dataclasses import replace

from lychee_export.checkpoint.lookup import find_checkpoint
from lychee_export.checkpoint.refusals import explain_unknown
from lychee_export.contract.limits import Limits
from lychee_export.errors import CheckpointError
from lychee_export.families import blip, clip, lychee_mini, qwen_vl, siglip
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

FAMILIES: tuple[Family, ...] = (lychee_mini.FAMILY, qwen_vl.FAMILY, clip.FAMILY, siglip.FAMILY, blip.FAMILY)


def load_checkpoint(
    checkpoint: str,
    limits: Limits | None = None,
    revision: str | None = None,
    *,
    weights: bool = True,
    base: str | None = None,
    template: str | None = None,
) -> Checkpoint:
    """Load a checkpoint into torch modules that are ready to export.

    Args:
        checkpoint: The name of a bundled checkpoint ("lychee-mini"), the path of a checkpoint folder, or "owner/name"
            of a model on the Hugging Face hub.
        limits: What the deployment admits. None takes the default limits.
        revision: The branch, tag or commit on the hub. None takes the main branch.
        weights: Whether to load the weights. Otherwise the modules have shapes and no values, and nothing large is
            downloaded or read.
        base: The base model of an adapter, as a folder or a name on the hub. None takes the one that it names.
        template: The name of the prompt, for a checkpoint that does not say how it ranks.

    Raises:
        CheckpointError: The folder or a file is missing or damaged, the family is unknown, or the limits hold an
            instruction and the model reads none.
    """
    source = replace(find_checkpoint(checkpoint, revision, base), template=template)
    model_type = source.config.get("model_type")
    for family in FAMILIES:
        if model_type in family.model_types:
            if template is not None and not family.has_templates:
                raise CheckpointError(
                    f"{checkpoint} is of the family {family.name}, which has no prompt to choose; leave --template out"
                )
            loaded = family.load(source.with_weights() if weights else source, limits or Limits())
            _check_instruction(loaded, limits or Limits())
            return loaded
    known = "; ".join(
        f"{', '.join(family.model_types)} (such as {', '.join(family.checkpoints)})" for family in FAMILIES
    )
    raise CheckpointError(
        f"{source.folder / 'config.json'}: unknown model_type {model_type!r}; this exporter knows {known}."
        f"{explain_unknown(source.config)}"
    )


def _check_instruction(checkpoint: Checkpoint, limits: Limits) -> None:
    if limits.instruction is not None and checkpoint.card.spec.instruction is None:
        raise CheckpointError(
            f"{checkpoint.card.spec.model_id} reads no instruction, got {limits.instruction!r}; leave --instruction out"
        )

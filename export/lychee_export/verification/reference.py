"""Fresh scores of the reference implementation for the golden pairs of a manifest."""

from __future__ import annotations

from dataclasses import replace

from lychee_client import Manifest

from lychee_export.checkpoint.reading import Reading
from lychee_export.contract.limits import Limits
from lychee_export.errors import CheckpointError
from lychee_export.families import load_checkpoint
from lychee_export.families.template import name_template

__all__ = ["reference_scores"]


def reference_scores(checkpoint: str, manifest: Manifest, base: str | None = None) -> list[float]:
    """Score the golden pairs with the reference implementation, within the limits of the export.

    Args:
        checkpoint: The checkpoint that was exported: a bundled name, a folder or a model of the hub.
        manifest: The manifest of the export.
        base: The base model of an adapter. None takes the one that the adapter names.

    Returns:
        One score per golden pair, in the manifest's order.

    Raises:
        CheckpointError: The checkpoint cannot be loaded, or it is another one than was exported.
    """
    loaded = load_checkpoint(checkpoint, _limits(manifest), _read(manifest, base))
    spec = loaded.card.spec
    exported = (manifest.family, manifest.revision)
    if (spec.family, spec.revision) != exported:
        raise CheckpointError(
            f"{checkpoint} is {spec.family} of revision {spec.revision}, but what is checked was exported from "
            f"{exported[0]} of revision {exported[1]}; name the checkpoint that was exported"
        )
    pairs = loaded.make_reference().golden_pairs
    found = {(pair.query, pair.document): pair.relevance_score for pair in pairs}
    scores = [found.get((pair.query, pair.document)) for pair in manifest.golden_pairs.pairs]
    if None in scores:
        raise CheckpointError(
            f"this version of the exporter replays other golden pairs than the manifest holds ({len(pairs)} here, "
            f"{len(scores)} there); export again"
        )
    return [score for score in scores if score is not None]


def _read(manifest: Manifest, base: str | None) -> Reading:
    """Return how the exported checkpoint was read."""
    instruction = None if manifest.instruction is None else manifest.instruction.default
    return Reading(base=base, template=name_template(manifest.prompt), instruction=instruction)


def _limits(manifest: Manifest) -> Limits:
    """Return the export's limits, as far as a reference score depends on them."""
    limits = Limits()
    try:
        return replace(
            limits,
            max_tokens=manifest.text.max_tokens,
            max_images=getattr(manifest.image, "max_images", limits.max_images),
            max_img_size=manifest.max_img_size,
        )
    except ValueError:  # a model with a smaller bound of its own keeps that, whatever the limits say
        return limits

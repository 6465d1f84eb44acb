"""Models that read pages as images for late interaction: ColQwen2, ColQwen2.5 and ColPali.

Query, text or page become a vector of every token, and MaxSim compares a query's with a document's. A query stands in
the prompt that the authors trained with, padding tokens behind it; a page in a prompt of its own; a text alone.

Source: transformers 5.23.0, models/colqwen2 and models/colpali; colpali-engine 0.3.18, colpali_engine/models/.
"""

from __future__ import annotations

from lychee_export.checkpoint.source import CheckpointSource
from lychee_export.contract.limits import Limits
from lychee_export.families.colvision import paligemma, qwen
from lychee_export.families.family import Checkpoint, Family

__all__ = ["FAMILY"]

_LOADERS = {
    "colpali": paligemma.load,
    "paligemma": paligemma.load,
    "colqwen2": qwen.load,
    "qwen2_vl": qwen.load,
    "qwen2_5_vl": qwen.load,
}


def load(source: CheckpointSource, limits: Limits) -> Checkpoint:
    """Load a model that reads pages.

    Raises:
        CheckpointError: The checkpoint is damaged, or of another kind, or the limits leave no room.
    """
    return _LOADERS[source.config["model_type"]](source, limits)


FAMILY = Family(
    name="colvision",
    model_types=tuple(_LOADERS),
    load=load,
    checkpoints=("vidore/colqwen2-v1.0-hf", "vidore/colqwen2.5-v0.2", "vidore/colpali-v1.3-hf"),
    architectures=("ColQwen2ForRetrieval", "ColQwen2", "ColQwen2_5", "ColPaliForRetrieval", "ColPali"),
)

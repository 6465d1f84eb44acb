"""Models that read pages as images for late interaction: ColQwen2 and ColQwen2.5.

Query, text or page become a vector of every token, and MaxSim compares a query's with a document's. A query stands in
the prompt that the authors trained with, padding tokens behind it; a page in a prompt of its own; a text alone.

Source: transformers 5.23.0, models/colqwen2; colpali-engine 0.3.18, colpali_engine/models/.
"""

from __future__ import annotations

from lychee_export.families.colvision.qwen import ARCHITECTURES, MODEL_TYPES, load
from lychee_export.families.family import Family

__all__ = ["FAMILY"]

FAMILY = Family(
    name="colvision",
    model_types=MODEL_TYPES,
    load=load,
    checkpoints=("vidore/colqwen2-v1.0-hf", "vidore/colqwen2.5-v0.2"),
    architectures=ARCHITECTURES,
)

"""What several tests of `lychee bulk` need."""

from typing import Any

from lychee_bulk.options import ServedModel
from lychee_client.manifest import ModelIdentity


def make_model(version: int | None = 7, **changes: Any) -> ServedModel:
    """Make a model of a run."""
    facts = {"model_id": "mini", "revision": "1" * 12, "precision": "fp32", "artifacts": {"tokenizer": "0" * 64}}
    return ServedModel(ModelIdentity(**{**facts, **changes}), version, "Find it")

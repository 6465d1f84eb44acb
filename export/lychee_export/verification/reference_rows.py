"""Natural rows with the reference's scores, which let a server measure what a faster execution costs in accuracy."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from lychee_export.contract.signature import ModelSignature, Tensors
from lychee_export.families import Reference, round_scores
from lychee_export.verification.expected import ExpectedValues
from lychee_export.verification.validation import pad_to_next_bucket

__all__ = ["REFERENCE_ROWS_FILENAME", "write_reference_rows"]

REFERENCE_ROWS_FILENAME = "reference_rows.npz"


def write_reference_rows(
    path: Path, ensembles: Iterable[ModelSignature], reference: Reference, expected: ExpectedValues
) -> None:
    """Write one array for each tensor, named "<ensemble>.<tensor>".

    The tensors are an ensemble's inputs and its "relevance_score", float64, (rows, 1), from the reference. Where an
    input is a query's embedding, the query's tokens take its place, "query_input_ids" and "query_attention_mask".
    Inputs that a client may pad are there a second time, "<ensemble>.<tensor>.padded", padded to the next length. Equal
    rows of an array are written once, and "<array>.rows" says which stand where. The bytes of the file depend on its
    content alone.

    Args:
        path: The file.
        ensembles: Those that the rows belong to.
        reference: What the reference implementation computed.
        expected: What the torch modules computed; its scores stand in where the reference has none of its own.
    """
    arrays: Tensors = {}
    for ensemble in ensembles:
        rows = reference.scored_rows.get(ensemble.name) or _from_modules(expected, ensemble.name)
        padded = pad_to_next_bucket(ensemble, rows) or {}
        changed = {f"{name}.padded": value for name, value in padded.items() if value is not rows[name]}
        for name, value in {**rows, **changed}.items():
            distinct, indices = np.unique(value, axis=0, return_inverse=True)
            arrays |= {f"{ensemble.name}.{name}": distinct, f"{ensemble.name}.{name}.rows": indices}
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)


def _from_modules(expected: ExpectedValues, name: str) -> Tensors:
    sample = expected.ensemble_samples[name]
    return sample.inputs | {"relevance_score": round_scores(sample.outputs["relevance_score"])}

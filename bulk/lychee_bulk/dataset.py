"""Scores for those who have a Dataset of Ray Data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from ray.data import ActorPoolStrategy, Dataset

from lychee_bulk.actors import TableScorer
from lychee_bulk.options import ScoringOptions

ACTOR_CPUS: Final = 1
BATCH_ROWS: Final = 1024
CALLS_PER_ACTOR: Final = 2
"""While one batch waits for its last answers, and is written, the next one is under way."""


def score(
    dataset: Dataset,
    url: str | None = None,
    *,
    columns: Mapping[str, str] | None = None,
    id_column: str | None = None,
    keep_columns: Sequence[str] | None = None,
    batch_size: int = BATCH_ROWS,
    actors: int = 1,
    **options: Any,
) -> Dataset:
    """Add scores, decisions and errors to the rows of a Dataset; it is lazy as all of Ray Data is.

    A row is a pair (columns `query` and `document`, or `query_image` and `document_image`), or a query with a list of
    `documents`, which becomes a row for each document. One bad row is an error row. Every actor takes the model that
    its server has when it begins, and fails if the server gets another.

    Args:
        dataset: The rows.
        url: See ScoringOptions.
        columns: Names of columns by what they hold: query, query_image, document, document_image, documents,
            instruction. The others are known by their names.
        id_column: The column that names rows, the output's `id`. Without one there is none.
        keep_columns: The columns that stay beside the scores. None keeps all that the scores' own names leave.
        batch_size: How many rows an actor gets at a time.
        actors: How many actors score.
        options: See ScoringOptions.

    Returns:
        A Dataset with the columns of `lychee_bulk.results.SCHEMA`, and those that are kept.

    Raises:
        ConfigurationError: An option cannot be used.
    """
    kept = None if keep_columns is None else tuple(keep_columns)
    asked = ScoringOptions(url=url, **options)
    return dataset.map_batches(
        TableScorer,
        fn_constructor_args=(asked, None, dict(columns or {}), id_column, kept),
        batch_format="pyarrow",
        batch_size=batch_size,
        compute=make_pool(actors),
        num_cpus=ACTOR_CPUS,
    )


def make_pool(actors: int) -> ActorPoolStrategy:
    """Return the pool of so many actors, each of which has two batches under way."""
    return ActorPoolStrategy(
        size=actors,
        max_tasks_in_flight_per_actor=2 * CALLS_PER_ACTOR,
        max_concurrent_calls_per_actor=CALLS_PER_ACTOR,
        enable_true_multi_threading=True,
    )

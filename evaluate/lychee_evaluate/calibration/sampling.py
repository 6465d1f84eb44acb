"""Which pairs are most useful to label: most near the decision border, the others spread over all scores."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from lychee_client import ConfigurationError
from lychee_client.score_mapping import Array

from lychee_evaluate.calibration.pairs import COLUMNS, Pair
from lychee_evaluate.tables.writing import Format, format_table

DEFAULT_COUNT: Final = 50
BANDS: Final = 10
NEAR_SHARE: Final = 0.6
# A query that is in already makes its next pair as unattractive as one that lies so much farther from the border.
QUERY_PENALTY: Final = 0.05


def choose_pairs(
    scores: Array, queries: npt.NDArray[np.int64], *, count: int = DEFAULT_COUNT, threshold: float, seed: int = 0
) -> list[int]:
    """Choose pairs to label.

    NEAR_SHARE of them are those nearest to the threshold, where a label moves it most; the rest comes from
    whichever of ten bands of scores has the fewest, so that the precision-recall curve has points everywhere. Both
    prefer queries that have few pairs in the choice.

    Args:
        scores: The relevance scores, (pairs,), in [0, 1].
        queries: The number of each pair's query, (pairs,), from 0.
        count: How many pairs to choose; if there are fewer, all are taken.
        threshold: The decision border, in [0, 1].
        seed: The seed of the draw that decides between equals.

    Returns:
        The positions of the chosen pairs, ascending.

    Raises:
        ConfigurationError: `count` or `threshold` cannot be used.
    """
    if count < 1:
        raise ConfigurationError(f"count is {count}; expected 1 or more")
    if not 0 <= threshold <= 1:
        raise ConfigurationError(f"threshold is {threshold}; expected a number from 0 to 1")
    if count >= len(scores):
        return list(range(len(scores)))
    shuffled = np.random.default_rng(seed).permutation(len(scores))
    scores, queries = scores[shuffled], queries[shuffled]
    distances = np.abs(scores - threshold)
    bands = np.minimum((scores * BANDS).astype(int), BANDS - 1)
    chosen = np.zeros(len(scores), bool)
    uses = np.zeros(queries.max() + 1)
    near = round(count * NEAR_SHARE)
    for size in range(count):
        if size < near:
            cost = distances + QUERY_PENALTY * uses[queries]
        else:
            in_band = np.bincount(bands[chosen], minlength=BANDS)
            is_open = np.bincount(bands[~chosen], minlength=BANDS) > 0
            cost = np.where(bands == np.where(is_open, in_band, count).argmin(), uses[queries], np.inf)
        best = int(np.where(chosen, np.inf, cost).argmin())
        chosen[best] = True
        uses[queries[best]] += 1
    return sorted(shuffled[chosen].tolist())


def format_label_sheet(pairs: Sequence[Pair], path: Path, kind: Format) -> bytes:
    """Return a sheet with an empty column `relevant`, in the pairs' order and without their scores.

    A score would sway whoever labels.

    Args:
        pairs: The pairs to be labelled.
        path: The path where the sheet will lie: its paths of images are relative to that folder.
        kind: The format of the sheet.
    """
    rows = [
        {
            "query": pair.query or "",
            "query_image": _relative(pair.query_image, path.parent),
            "text": pair.text or "",
            "image": _relative(pair.image, path.parent),
            "instruction": pair.instruction or "",
        }
        for pair in pairs
    ]
    return format_table(rows, COLUMNS, kind)


def _relative(image: Path | None, folder: Path) -> str:
    if image is None:
        return ""
    return Path(os.path.relpath(image.resolve(), folder.resolve())).as_posix()

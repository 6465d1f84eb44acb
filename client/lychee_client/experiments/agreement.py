"""How far two rankings of the same documents agree."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def kendall_tau_b(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Return Kendall's tau-b of two lists of scores: 1 for the same order, -1 for the opposite one; ties are corrected.

    Args:
        first: The scores by the one model, one for each document.
        second: Those by the other, in the same order of documents.

    Returns:
        The tau, or None where there is none: fewer than two documents, or one model gives all the same score.
    """
    signs = [np.sign(np.subtract.outer(each, each))[np.triu_indices(len(each), 1)] for each in (first, second)]
    ordered = [int(np.count_nonzero(each)) for each in signs]
    if not all(ordered):
        return None
    return float(np.dot(*signs)) / math.sqrt(ordered[0] * ordered[1])

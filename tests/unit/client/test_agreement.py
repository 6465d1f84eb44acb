"""Kendall's tau-b is SciPy's, ties included."""

import numpy as np
import pytest
from lychee_client.experiments.agreement import kendall_tau_b
from scipy import stats


@pytest.mark.parametrize("levels", [3, 10, 10**6])
@pytest.mark.parametrize("count", [2, 7, 100])
def test_tau_is_scipys_with_and_without_ties(count: int, levels: int) -> None:
    rng = np.random.default_rng(count + levels)
    for _ in range(20):
        first, second = rng.integers(0, levels, (2, count)) / levels
        expected = stats.kendalltau(first, second).statistic
        found = kendall_tau_b(list(first), list(second))
        if np.isnan(expected):
            assert found is None
        else:
            assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("scores", [[], [0.5], [0.5, 0.5]])
def test_one_document_or_equal_scores_have_no_tau(scores: list[float]) -> None:
    assert kendall_tau_b(scores, scores) is None

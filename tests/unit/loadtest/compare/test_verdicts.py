"""Ratios, targets, and the check that nobody is timed who ranks something else."""

from __future__ import annotations

import numpy as np
import pytest
from lychee_loadtest.compare.verdicts import Ratio, compare_rounds, compare_scores, format_table

REFERENCE = np.array([0.1, 0.4, 0.2, 0.9, 0.3])


def test_ratio_is_the_median_of_quotients_within_rounds() -> None:
    ratio = compare_rounds("photos: ours / theirs", [20.0, 30.0, 10.0], [10.0, 10.0, 10.0], target=2.0)
    assert (ratio.median, ratio.lowest, ratio.highest) == (2.0, 1.0, 3.0)
    assert ratio.met is True


def test_a_slow_round_of_the_machine_does_not_move_the_ratio() -> None:
    assert compare_rounds("x", [20.0, 2.0, 20.0], [10.0, 1.0, 10.0]).median == 2.0


@pytest.mark.parametrize(("ours", "theirs"), [([], []), ([1.0], [1.0, 2.0])])
def test_rounds_that_do_not_match_are_refused(ours: list[float], theirs: list[float]) -> None:
    with pytest.raises(ValueError, match="expected the same number"):
        compare_rounds("x", ours, theirs)


@pytest.mark.parametrize(
    ("median", "target", "at_least", "met"),
    [(2.5, 2.5, True, True), (2.4, 2.5, True, False), (2.0, 2.0, False, True), (2.1, 2.0, False, False)],
)
def test_target_is_inclusive_and_has_a_direction(median: float, target: float, at_least: bool, met: bool) -> None:
    assert Ratio("x", median, median, median, target, at_least).met is met


def test_ratio_without_target_has_no_verdict() -> None:
    ratio = Ratio("x", 1.0, 1.0, 1.0)
    assert ratio.met is None
    assert format_table([ratio])[-1] == "| x | 1.00 | 1.00 to 1.00 |  |"


def test_table_says_target_and_verdict() -> None:
    lines = format_table([Ratio("p99", 2.5, 2.4, 2.6, 2.0, False), Ratio("rate", 2.5, 2.4, 2.6, 2.0)])
    assert lines[2].endswith("| 2.40 to 2.60 | at most 2, missed |")
    assert lines[3].endswith("| 2.40 to 2.60 | at least 2, met |")


def test_scores_agree_up_to_scale_and_offset() -> None:
    agreement = compare_scores(REFERENCE, 4 * REFERENCE - 3, tolerance=0.01)
    assert agreement.is_within(1e-6)
    assert agreement.correlation == pytest.approx(1.0)


def test_one_wrong_score_is_found() -> None:
    scores = REFERENCE.copy()
    scores[2] = 0.35
    agreement = compare_scores(REFERENCE, scores, tolerance=0.01)
    assert not agreement.same_order
    assert not agreement.is_within(0.01)


def test_reversed_scores_do_not_agree() -> None:
    assert not compare_scores(REFERENCE, -REFERENCE, tolerance=0.01).is_within(1.0)
    assert not compare_scores(REFERENCE, -REFERENCE, tolerance=1e9).same_order


def test_documents_that_the_tolerance_cannot_tell_apart_may_change_places() -> None:
    reference = np.array([0.0, 0.5, 0.5001, 1.0])
    scores = np.array([0.0, 0.5001, 0.5, 1.0])
    assert compare_scores(reference, scores, tolerance=0.01).is_within(0.01)


@pytest.mark.parametrize("scores", [REFERENCE[:-1], np.append(REFERENCE[:-1], np.nan)])
def test_missing_and_undefined_scores_do_not_agree(scores: np.ndarray) -> None:
    assert not compare_scores(REFERENCE, scores, tolerance=0.01).is_within(1e9)


def test_reference_that_tells_nothing_apart_is_refused() -> None:
    with pytest.raises(ValueError, match="expected different scores"):
        compare_scores(np.full(5, 0.5), REFERENCE, tolerance=0.01)

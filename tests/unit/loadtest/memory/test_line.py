"""A line through points, and its error."""

from __future__ import annotations

import pytest
from lychee_loadtest.memory.line import fit_line


def test_a_line_goes_through_points_that_lie_on_one() -> None:
    line = fit_line([1, 2, 4], [5, 7, 11])
    assert (line.intercept, line.slope) == pytest.approx((3, 2))
    assert line.at(100) == pytest.approx(203)
    assert line.error_at(100) == pytest.approx(0, abs=1e-9)


def test_the_error_is_the_prediction_interval_of_the_regression() -> None:
    # By hand: residual^2 = 0.2 / 2, mean 2.5, spread 5, t(2 degrees of freedom) = 4.302653.
    line = fit_line([1, 2, 3, 4], [1.1, 1.9, 3.1, 3.9])
    residual = (sum((y - line.at(x)) ** 2 for x, y in zip([1, 2, 3, 4], [1.1, 1.9, 3.1, 3.9], strict=True)) / 2) ** 0.5
    assert line.error_at(8) == pytest.approx(4.302653 * residual * (1 + 1 / 4 + 5.5**2 / 5) ** 0.5)
    assert line.error_at(8) > line.error_at(3)


def test_one_point_gives_a_level_line_and_two_give_no_error() -> None:
    assert fit_line([4], [10]).at(99) == 10
    assert fit_line([1, 2], [10, 12]).error_at(50) == 0

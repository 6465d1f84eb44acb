"""The size of a patient call's requests."""

from collections.abc import Callable

import pytest
from lychee_client._pipelines.pace import Pace

REQUESTS = 40


def settle(answer_s: Callable[[int], float], length: int = 16, requests: int = REQUESTS) -> list[int]:
    """Return how many texts each request had, for a server that answers so many texts after so long."""
    pace = Pace()
    sizes = []
    for _ in range(requests):
        rows = pace.find_rows(length)
        sizes.append(rows)
        pace.note(rows * length, answer_s(rows))
    return sizes


def test_the_first_request_is_one_text() -> None:
    assert [Pace().find_rows(length) for length in (16, 24, 512)] == [1, 1, 1]


def test_requests_grow_on_a_fast_server_and_never_more_than_double() -> None:
    sizes = settle(lambda rows: 0.002 + 0.0005 * rows)
    assert sizes[:5] == [1, 2, 4, 8, 16]
    assert 0.020 < 0.002 + 0.0005 * sizes[-1] <= 0.024


def test_requests_stay_within_24_ms_on_a_slow_server() -> None:
    assert set(settle(lambda rows: 0.007 + 0.005 * rows)[1:]) <= {2, 3}


def test_a_model_that_takes_longer_for_one_text_gets_one_at_a_time() -> None:
    assert set(settle(lambda rows: 0.041 + 0.004 * rows)) == {1}


def test_requests_shrink_to_one_text_while_others_go_first_and_grow_again_afterwards() -> None:
    busy = {"s": 0.0}
    pace = Pace()
    history = []
    for number in range(60):
        busy["s"] = 0.012 if 20 <= number < 40 else 0.0
        rows = pace.find_rows(16)
        history.append(rows)
        pace.note(16 * rows, busy["s"] + 0.007 + 0.005 * rows)
    assert set(history[5:20]) <= {2, 3}
    assert set(history[25:40]) == {1}
    assert set(history[45:]) <= {2, 3}


def test_one_slow_answer_halves_the_next_request_at_most() -> None:
    pace = Pace()
    for _ in range(5):
        pace.note(16 * pace.find_rows(16), 0.0001)
    before = pace.find_rows(16)
    pace.note(16 * before, 30.0)
    assert pace.find_rows(16) == before // 2


@pytest.mark.parametrize("elapsed_s", [0.0, 1e-9])
def test_an_answer_in_no_time_is_no_division_by_zero(elapsed_s: float) -> None:
    pace = Pace()
    pace.note(16, elapsed_s)
    assert pace.find_rows(16) == 2

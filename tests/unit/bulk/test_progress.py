"""How far a run is: rows, errors, speed and the time that is left."""

import io

import pytest
from lychee_bulk.extent import Extent
from lychee_bulk.progress import Lines, format_duration, shown
from lychee_bulk.units import Unit
from rich.console import Console


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_speed_is_of_this_session_and_the_time_left_of_what_is_left() -> None:
    clock, said = Clock(), list[str]()
    lines = Lines(Extent([1000], [1]), 400, said.append, 30.0, clock)
    clock.now_s += 10.0
    lines.advance(50, 1)
    assert said == []
    clock.now_s += 20.0
    lines.advance(50, 2)
    clock.now_s += 5.0
    lines.advance(50, 0)
    assert said == ["500 of 1,000 rows, 3 errors, 3.3 rows/s, 150 s left".replace("150 s", "2 min")]


def test_a_total_that_is_guessed_is_called_so() -> None:
    clock, extent = Clock(), Extent([None], [10_000])
    lines = Lines(extent, 0, print, 30.0, clock)
    assert lines.describe() == "0 rows, 0 errors, 0.0 rows/s"
    clock.now_s += 1.0
    extent.learn(Unit(0, 0, 100, False), 1000)
    lines.count(100, 0)
    assert lines.describe() == "100 of about 1,000 rows, 0 errors, 100.0 rows/s, 9 s left"


def test_a_bar_is_shown_on_a_terminal_and_lines_elsewhere() -> None:
    for is_terminal in (True, False):
        stream, said = io.StringIO(), list[str]()
        console = Console(file=stream, force_terminal=is_terminal, width=120)
        with shown(Extent([10], [1]), 0, said.append, 0.0, console) as advance:
            advance(10, 1)
        assert ("10 of 10 rows, 1 errors" in stream.getvalue()) == is_terminal
        assert len(said) == (0 if is_terminal else 1)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0 s"), (89.4, "89 s"), (90, "2 min"), (5340, "89 min"), (5400, "1 h 30 min"), (90_000, "25 h 0 min")],
)
def test_durations_are_for_people(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_rows_are_known_where_all_files_say_so_or_were_read_to_the_end() -> None:
    extent = Extent([None, 20], [100, 100], [Unit(0, 0, 5, False)])
    assert not extent.is_known
    extent.learn(Unit(0, 5, 3, True), 100)
    assert (extent.is_known, extent.rows) == (True, 28)
    assert Extent([0], [0]).rows == 0


def test_rows_are_guessed_from_what_was_read() -> None:
    extent = Extent([None, None, None], [1000, 2000, 500], [Unit(0, 0, 50, False), Unit(2, 0, 50, False)])
    assert extent.rows is None  # nobody knows how many bytes those took
    extent.learn(Unit(0, 50, 50, False), 500)
    assert extent.rows == 200 + 400 + 100
    extent.learn(Unit(0, 10, 10, False), 400)  # units may come late
    assert extent.rows == 700
    extent.learn(Unit(1, 0, 1000, False), 1000)
    assert extent.rows == 200 + 2000 + round(500 * 1100 / 1500)
    extent.learn(Unit(1, 1000, 10, True), 2000)
    assert extent.rows == 200 + 1010 + round(500 * 1110 / 2500)

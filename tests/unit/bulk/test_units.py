"""Units: where files are cut, what their names say, and whether parts are the whole input."""

import random

import pyarrow as pa
import pytest
from lychee_bulk.errors import IncompleteError
from lychee_bulk.units import Unit, UnitSize, check_whole, cut, is_remnant, parse_unit

MANY_BYTES = 2**30


def make_table(texts: list[str]) -> pa.Table:
    return pa.table({"text": pa.array(texts, pa.string())})


def cut_rows(tables: list[pa.Table], size: UnitSize) -> list[tuple[Unit, list[str]]]:
    return [(unit, table["text"].to_pylist() if table.num_rows else []) for unit, table in cut(tables, 3, size)]


@pytest.mark.parametrize("count", [1, 9, 10, 11, 20, 25])
def test_every_row_is_in_one_unit_in_order(count: int) -> None:
    texts = [f"text {n}" for n in range(count)]
    found = cut_rows([make_table(texts)], UnitSize(10, MANY_BYTES))
    assert [text for _, held in found for text in held] == texts
    assert [unit.start for unit, _ in found] == list(range(0, count, 10))
    assert [unit.rows for unit, _ in found] == [len(held) for _, held in found]
    assert [unit.is_last for unit, _ in found] == [False] * (len(found) - 1) + [True]
    assert {unit.file for unit, _ in found} == {3}


def test_a_file_without_rows_is_one_unit_without_rows() -> None:
    assert cut_rows([], UnitSize(10, MANY_BYTES)) == [(Unit(3, 0, 0, True), [])]
    assert cut_rows([make_table([])], UnitSize(10, MANY_BYTES)) == [(Unit(3, 0, 0, True), [])]


def test_units_of_a_size_in_bytes_end_with_the_row_that_fills_them() -> None:
    texts = ["x" * 100, "x" * 5000, *["x" * 100] * 30]
    found = cut_rows([make_table([text]) for text in texts], UnitSize(1000, 1000))
    assert [text for _, held in found for text in held] == texts
    assert found[0][0].rows == 2  # the long one ends it
    assert all(sum(map(len, held[:-1])) < 1000 for _, held in found)
    assert len(found) > 3


def test_units_are_the_same_in_every_run() -> None:
    rng = random.Random(5)
    tables = [make_table(["x" * rng.randrange(300) for _ in range(rng.randrange(40))]) for _ in range(20)]
    size = UnitSize(17, 2000)
    found = cut_rows(tables, size)
    assert found == cut_rows(tables, size)
    assert {unit.rows for unit, _ in found} > {17}


def test_the_name_of_a_part_says_its_unit() -> None:
    for unit in (Unit(0, 0, 0, True), Unit(12, 10**11, 1024, False)):
        assert parse_unit(unit.name) == unit
    names = [Unit(1, 999, 7, True).name, Unit(1, 0, 999, False).name, Unit(0, 10**6, 1, True).name]
    assert [parse_unit(name) for name in sorted(names)] == sorted(map(parse_unit, names))


@pytest.mark.parametrize(
    "name", ["_SUCCESS", "part-0.parquet", f".{Unit(0, 0, 1, True).name}.1f", f"{Unit(0, 0, 1, True).name}.tmp"]
)
def test_other_files_are_no_parts(name: str) -> None:
    assert parse_unit(name) is None


def test_what_a_killed_writer_left_is_known_by_its_name() -> None:
    name = Unit(0, 0, 1, True).name
    assert [is_remnant(one) for one in (f".{name}.0f", name, f".{name}", ".part-x", "_SUCCESS")] == [True] + [False] * 4


WHOLE = [Unit(0, 0, 10, False), Unit(0, 10, 4, True), Unit(1, 0, 0, True)]


def test_parts_that_are_the_whole_input_pass_in_any_order() -> None:
    check_whole(reversed(WHOLE), 2)


@pytest.mark.parametrize(
    ("units", "reason"),
    [
        (WHOLE[1:], "rows of input file 0 are missing"),
        (WHOLE[:1] + WHOLE[2:], "ends at row 10 of input file 0"),
        (WHOLE[:2], "ends at row 0 of input file 1"),
        ([*WHOLE, Unit(0, 5, 5, False)], "rows of input file 0 are twice"),
        ([*WHOLE, Unit(0, 14, 2, True)], "rows of input file 0 are twice"),
        ([*WHOLE, Unit(2, 0, 1, True)], "rows of input file 2, and the input has 2 files"),
    ],
)
def test_parts_with_a_gap_or_an_overlap_are_refused(units: list[Unit], reason: str) -> None:
    with pytest.raises(IncompleteError, match=reason):
        check_whole(units, 2)

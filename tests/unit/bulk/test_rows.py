"""From rows to pairs: what they hold, and what is wrong with them."""

import json
from typing import Any

import pyarrow as pa
import pytest
from lychee_bulk.columns import Columns
from lychee_bulk.errors import RowError
from lychee_bulk.reading import TEXT_SCHEMA
from lychee_bulk.rows import Pair, Side, find_pairs, keep, name_rows, read_rows

PAIRS = Columns(query="query", query_image="photo", document="text", document_image="image", instruction="task")
LISTS = Columns(query="query", documents="documents")


def lines(*rows: dict[str, Any] | str) -> pa.Table:
    """Make a table of lines; a text is the problem of one."""
    texts = [None if isinstance(row, str) else json.dumps(row) for row in rows]
    problems = [row if isinstance(row, str) else None for row in rows]
    return pa.table([texts, problems, [0] * len(rows)], schema=TEXT_SCHEMA)


def kinds(rows: list[Any], columns: Columns) -> dict[tuple[int, int], str]:
    return {place: error.kind for place, error in find_pairs(rows, columns)[1].items()}


def test_rows_of_lines_are_objects_or_errors() -> None:
    good, bad = read_rows(lines({"query": "a"}, "the line is no JSON"))
    assert good == {"query": "a"}
    assert isinstance(bad, RowError)
    assert (bad.kind, bad.message) == ("bad_row", "the line is no JSON")


def test_a_pair_may_have_texts_and_images() -> None:
    rows = [{"query": "a", "text": "b"}, {"photo": b"1", "text": " ", "image": ["x", "", None, b"2"], "task": "t"}]
    pairs, errors = find_pairs(rows, PAIRS)
    assert errors == {}
    assert pairs == [
        Pair(0, 0, Side("a", ()), Side("b", ()), None),
        Pair(1, 0, Side(None, (b"1",)), Side(None, ("x", b"2")), "t"),
    ]


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ({"text": "b"}, "no_query"),
        ({"query": "\u3000", "text": "b"}, "no_query"),
        ({"query": "a", "text": "", "image": []}, "no_document"),
        ({"query": 1, "text": "b"}, "bad_value"),
        ({"query": "a", "text": "\ud800"}, "bad_value"),
        ({"query": "a", "text": "b", "task": "x\0y"}, "bad_instruction"),
        ({"query": "a", "text": "b", "task": 5}, "bad_instruction"),
    ],
)
def test_a_row_that_makes_no_pair_is_an_error_of_its_own(row: dict[str, Any], kind: str) -> None:
    good = {"query": "a", "text": "b"}
    pairs, errors = find_pairs([good, row, good, RowError("bad_row", "no JSON")], PAIRS)
    assert [pair.row for pair in pairs] == [0, 2]
    assert {place: error.kind for place, error in errors.items()} == {(1, 0): kind, (3, 0): "bad_row"}


def test_a_list_of_documents_makes_a_pair_for_each() -> None:
    documents = ["b", {"text": "c", "image": b"1"}, b"2", {"txt": "d"}, 5, None]
    pairs, errors = find_pairs([{"query": "a", "documents": documents}], LISTS)
    assert [(pair.index, pair.document) for pair in pairs] == [
        (0, Side("b", ())),
        (1, Side("c", (b"1",))),
        (2, Side(None, (b"2",))),
    ]
    assert {index: error.kind for (_, index), error in errors.items()} == {
        3: "bad_value",
        4: "bad_value",
        5: "no_document",
    }


def test_a_cell_of_csv_may_hold_a_list_as_json() -> None:
    pairs, _ = find_pairs([{"query": "a", "documents": '["b", {"text": "c"}]'}], LISTS)
    assert [pair.document.text for pair in pairs] == ["b", "c"]
    rows = [{"query": "a", "documents": cell} for cell in ('["b"', "b", "[]", None)]
    assert list(kinds(rows, LISTS).values()) == ["bad_value", "bad_value", "no_document", "bad_value"]


def test_equal_sides_have_equal_keys() -> None:
    assert Side("a", (b"1",)).key == Side("a", (bytes([49]),)).key
    assert len({Side("a", ()).key, Side("b", ()).key, Side("a", (b"1",)).key, Side("a", ("1",)).key}) == 4


def test_rows_are_named_by_their_column_or_their_place() -> None:
    rows = [{"sku": 7}, {"sku": None}, RowError("bad_row", "")]
    assert name_rows(rows, Columns(id="sku"), "a.jsonl", 100) == ["7", "a.jsonl:101", "a.jsonl:102"]
    assert name_rows(rows, Columns(), "a.jsonl", 0) == ["a.jsonl:0", "a.jsonl:1", "a.jsonl:2"]


def test_kept_columns_of_lines_are_texts_for_each_row_of_the_output() -> None:
    table = lines({"a": "x", "b": {"c": [1, "猫"]}}, "no JSON", {"a": 2.5, "b": "\ud800"})
    kept = keep(table, read_rows(table), ("a", "b"), [0, 0, 1, 2])
    assert kept["a"].to_pylist() == ["x", "x", None, "2.5"]
    assert [None if one is None or one == "?" else json.loads(one) for one in kept["b"].to_pylist()] == [
        {"c": [1, "猫"]},
        {"c": [1, "猫"]},
        None,
        None,
    ]


def test_kept_columns_of_parquet_keep_their_types() -> None:
    table = pa.table({"a": pa.array([1, 2], pa.int8()), "b": ["x", "y"]})
    kept = keep(table, read_rows(table), ("a",), [1, 1, 0])
    assert (kept["a"].type, kept["a"].to_pylist(), list(kept)) == (pa.int8(), [2, 2, 1], ["a"])

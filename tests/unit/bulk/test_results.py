"""What the output holds of each pair, and the counts."""

import pyarrow as pa
from lychee_bulk.errors import RowError
from lychee_bulk.results import SCHEMA, Results, Tally
from lychee_client.types import RerankResult

SCORED = RerankResult(5, 0.75, 1.1, "accept", "text", truncated=True)


def test_the_output_is_in_the_order_of_the_input() -> None:
    results = Results(scored={(2, 1): SCORED, (0, 0): SCORED}, errors={(2, 0): RowError("no_document", "it is empty")})
    table, order = results.to_table(["a", "b", "c"], 7)
    assert table.schema == SCHEMA
    assert order == [0, 2, 2]
    first, failed, last = table.to_pylist()
    assert (first["id"], first["index"], last["id"], last["index"]) == ("a", 0, "c", 1)
    assert (last["relevance_score"], last["logit"], last["decision"]) == (0.75, 1.1, "accept")
    assert (last["truncated"], last["error"], last["message"], last["model_version"]) == (True, None, None, 7)
    assert {name: value for name, value in failed.items() if value is not None} == {
        "id": "c",
        "index": 0,
        "error": "no_document",
        "message": "it is empty",
    }


def test_an_empty_output_has_all_columns() -> None:
    table, order = Results().to_table([], None)
    assert (table.schema, table.num_rows, order) == (SCHEMA, 0, [])


def test_a_message_may_quote_half_a_character() -> None:
    table, _ = Results(errors={(0, 0): RowError("bad_value", "it is \ud800")}).to_table(["a"], None)
    assert table["message"].to_pylist() == ["it is ?"]
    assert pa.types.is_string(table["message"].type)


def test_counts_add_up_and_survive_json() -> None:
    errors = {(1, 0): RowError("no_query", ""), (2, 0): RowError("no_query", ""), (3, 0): RowError("bad_row", "")}
    one = Results(scored={(0, 0): SCORED}, errors=errors, warnings={"beware": None}).tally(4)
    assert one == Tally(4, 1, {"no_query": 2, "bad_row": 1}, ("beware",))
    assert one.failed == 3
    both = one + Tally(2, 1, {"bad_row": 5}, ("beware", "and again"))
    assert both == Tally(6, 2, {"no_query": 2, "bad_row": 6}, ("beware", "and again"))
    assert Tally.from_json(both.to_json()) == both
    assert list(both.to_json()["errors"]) == ["bad_row", "no_query"]  # the most first

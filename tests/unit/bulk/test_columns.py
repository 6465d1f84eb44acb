"""Which column is which."""

import pytest
from lychee_bulk.columns import Columns, find_columns
from lychee_bulk.errors import InputError


def test_columns_are_known_by_their_names_in_english_and_chinese() -> None:
    assert find_columns(["Question", "passage", "sku"]) == Columns(query="Question", document="passage")
    assert find_columns(["查询", "图片"]) == Columns(query="查询", document_image="图片")
    assert find_columns(["query_image", "documents", "instruction"]) == Columns(
        query_image="query_image", documents="documents", instruction="instruction"
    )


def test_chosen_columns_go_before_names_and_an_empty_name_leaves_one_out() -> None:
    names = ["query", "frage", "text", "documents"]
    chosen = {"query": "frage", "documents": ""}
    assert find_columns(names, chosen, "text") == Columns(query="frage", document="text", id="text")


def test_used_columns_are_named_once() -> None:
    assert Columns(query="a", document="b", instruction="c", id="a").used == ("a", "b", "c")


@pytest.mark.parametrize(
    ("names", "chosen", "reason"),
    [
        (["text"], {}, "no column of queries; expected query or query_image"),
        (["query", "sku"], {}, "no column of documents; expected query"),
        (["query", "text", "documents"], {}, "documents twice, in 'documents' and in 'text'"),
        (["query", "text"], {"query": "frage"}, "no column 'frage'; it has 'query', 'text'"),
        (["query", "text"], {"frage": "query"}, "names 'frage'; expected one of query, query_image"),
    ],
)
def test_columns_that_make_no_pairs_are_refused(names: list[str], chosen: dict[str, str], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        find_columns(names, chosen)

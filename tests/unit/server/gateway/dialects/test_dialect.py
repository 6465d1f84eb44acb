"""The table of a dialect, forwards and backwards."""

from __future__ import annotations

from typing import Any

import pytest
from lychee_server.gateway.answer_schemas import RerankAnswer
from lychee_server.gateway.dialects.dialect import FLAG, LOWEST_LOGIT, Dialect, logits, shape
from lychee_server.gateway.errors import RequestValueError

DIALECT = Dialect(
    name="toy",
    fields={"texts": "documents", "passages": "documents", "top_k": "top_n"},
    values={"raw": FLAG, "truncate": {"NONE": False, "END": None}},
    shaping=frozenset({"raw"}),
    ignored={"side": ("right",)},
    answer=lambda answer, sent: answer,
    request=shape("ToyRequest", {}),
    response=shape("ToyAnswer", {}),
)


def test_fields_are_renamed_and_what_is_not_known_stays() -> None:
    sent = {"query": "q", "texts": ["a"], "top_k": 2, "canary": {"deep": 1}}
    assert DIALECT.translate(sent) == {"query": "q", "documents": ["a"], "top_n": 2, "canary": {"deep": 1}}


def test_what_asks_for_nothing_is_left_out_and_what_asks_for_more_is_left_to_the_check() -> None:
    sent = {"texts": ["a"], "raw": "true", "truncate": "END", "side": "right", "top_k": None}
    assert DIALECT.translate(sent) == {"documents": ["a"]}
    assert DIALECT.translate({"texts": None, "truncate": "NONE", "side": "left"}) == {
        "documents": None,
        "truncate": False,
        "side": "left",
    }


def test_a_vendors_name_counts_more_than_ours() -> None:
    for sent in ({"texts": ["a"], "documents": ["b"]}, {"documents": ["b"], "texts": ["a"]}):
        assert DIALECT.translate(sent) == {"documents": ["a"]}


@pytest.mark.parametrize(
    ("value", "seen"),
    [("MIDDLE", "'MIDDLE'"), (3, "3"), ("x" * 99, "a value of type str"), ([], "a value of type list")],
)
def test_a_value_that_means_nothing_is_refused_by_name(value: Any, seen: str) -> None:
    with pytest.raises(RequestValueError) as caught:
        DIALECT.translate({"truncate": value})
    assert str(caught.value) == f"truncate is {seen}; expected NONE or END"
    assert (caught.value.param, caught.value.status) == ("truncate", 422)


@pytest.mark.parametrize(
    ("sent", "message", "param", "renamed", "place"),
    [
        ({"texts": []}, "documents has 0 entries", "documents", "texts has 0 entries", "texts"),
        ({"passages": []}, "documents.1: bad", "documents.1", "passages.1: bad", "passages.1"),
        ({}, "documents: Field required", "documents", "texts: Field required", "texts"),
        ({"documents": 1}, "documents: bad", "documents", "documents: bad", "documents"),
        ({"top_k": 1}, "min_results is above top_n", "min_results", "min_results is above top_k", "min_results"),
        ({"texts": []}, "there are 9 documents", None, "there are 9 documents", None),
        ({"texts": []}, "1 of 2 documents: documents[0]: bad", "documents", "1 of 2 documents: texts[0]: bad", "texts"),
    ],
)
def test_errors_name_fields_as_they_were_sent(
    sent: dict[str, Any], message: str, param: str | None, renamed: str, place: str | None
) -> None:
    error = {"message": message, "param": param, "error": {"message": message, "param": param, "code": 422}}
    assert DIALECT.translate_error(error, 422, sent) == {
        "message": renamed,
        "param": place,
        "error": {"message": renamed, "param": place, "code": 422},
    }


def test_a_document_that_could_not_be_ranked_has_a_logit_below_all_others(answer: RerankAnswer) -> None:
    assert logits(answer.results) == [1.5, -1.5, LOWEST_LOGIT]
    answer.results[1].logit = -130.0
    assert logits(answer.results) == [1.5, -130.0, -131.0]

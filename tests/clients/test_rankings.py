"""Every client sees what the gateway's own route answers: the same scores, the same order, a result for every text."""

from __future__ import annotations

import math

import pytest
from rankers import RANKERS
from rankers.ranker import Call, Native, Ranker

QUERY = "一只猫"
TEXTS = ["a cup of coffee", "店里的小猫喜欢在窗台上晒太阳。", "猎鹰九号火箭竖立在发射台上。", "a dog", "a red car"]
UNRANKABLE = ""
TOLERANCE = 1e-6

every_client = pytest.mark.parametrize("ranker", RANKERS, ids=lambda ranker: ranker.name)


def check(ranked: list[tuple[int, float]], ranker: Ranker, answer: dict[str, object]) -> None:
    """Compare what a client shows with our own answer."""
    results = answer["results"]
    assert [index for index, _ in ranked] == [result["index"] for result in results]
    for (_, score), result in zip(ranked, results, strict=True):
        assert score == pytest.approx(result[ranker.score], abs=TOLERANCE)


@every_client
def test_scores_and_order_are_those_of_our_own_route(ranker: Ranker, gateway_url: str, native: Native) -> None:
    answer = native(QUERY, TEXTS)
    assert answer["results"][0]["index"] == 1
    check(ranker.rank(Call(gateway_url, QUERY, TEXTS)), ranker, answer)


@every_client
def test_best_alone_come_where_few_are_asked_for_with_a_key(
    ranker: Ranker, gateway_url: str, keyed_gateway_url: str, native: Native
) -> None:
    base = keyed_gateway_url if ranker.sends_key else gateway_url
    check(ranker.rank(Call(base, QUERY, TEXTS, top_n=2)), ranker, native(QUERY, TEXTS, top_n=2))


@every_client
def test_document_that_cannot_be_ranked_comes_last(ranker: Ranker, gateway_url: str, native: Native) -> None:
    texts = [TEXTS[0], UNRANKABLE, *TEXTS[1:]]
    ranked = ranker.rank(Call(gateway_url, QUERY, texts))
    answer = native(QUERY, texts)
    assert [failed["index"] for failed in answer["errors"]] == [1]
    assert sorted(index for index, _ in ranked) == list(range(len(texts)))
    (*rest, (last, worst)) = ranked
    assert last == 1
    if ranker.score == "relevance_score":
        assert worst == 0
    else:  # these clients need a number
        assert math.isfinite(worst)
        assert worst < min(score for _, score in rest)
    check(rest, ranker, {"results": [result for result in answer["results"] if result["index"] != 1]})

"""Pairs that do not share one query."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from lychee_client import ConnectionFailedError
from lychee_server.gateway.pairs import PARALLEL_CALLS, score_pairs


class Caller:
    """Notes who asks for what, and how many at a time; answers with the documents."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, list[Any]]] = []
        self.running = 0
        self.most = 0

    async def __call__(self, query: object, documents: Sequence[object]) -> Any:
        self.running += 1
        self.most = max(self.most, self.running)
        self.asked.append((query, list(documents)))
        await asyncio.sleep(0)
        self.running -= 1
        response = SimpleNamespace(model=None, model_version=None)
        return SimpleNamespace(documents=list(documents), response=response)


def ask(call: Any, query: object, documents: list[Any]) -> Any:
    return asyncio.run(score_pairs(call, query, documents))


def test_equal_queries_share_a_call() -> None:
    caller = Caller()
    image = {"image": "i", "text": "t"}
    queries = ["q", image, "q", {"text": "t", "image": "i"}, '{"image": "i"}']
    answered = ask(caller, queries, list(range(5)))
    assert [places for places, _ in answered] == [answer.documents for _, answer in answered] == [[0, 2], [1, 3], [4]]
    assert [query for query, _ in caller.asked] == ["q", image, '{"image": "i"}']


def test_one_query_is_one_call() -> None:
    caller = Caller()
    ask(caller, {"text": "q"}, ["a", "b"])
    assert caller.asked == [({"text": "q"}, ["a", "b"])]


def test_calls_run_at_the_same_time_but_not_all_of_them() -> None:
    caller = Caller()
    ask(caller, [str(number) for number in range(20)], list(range(20)))
    assert len(caller.asked) == 20
    assert caller.most == PARALLEL_CALLS


def test_one_failure_ends_all_with_its_own_error() -> None:
    ended: list[object] = []

    async def call(query: object, documents: Sequence[object]) -> Any:
        if query == "bad":
            raise ConnectionFailedError("away")
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(query)

    with pytest.raises(ConnectionFailedError, match="away"):
        ask(call, ["good", "bad", "later"], ["a", "b", "c"])
    assert sorted(map(str, ended)) == ["good", "later"]  # in any order: a TaskGroup keeps its tasks in a set

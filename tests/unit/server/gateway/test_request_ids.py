"""Ids of requests: the caller's where it is well-formed, ours otherwise."""

from __future__ import annotations

import asyncio

import pytest
from lychee_server.gateway.request_ids import accept_request_id, current_request_id, make_request_id, use_request_id


@pytest.mark.parametrize("value", ["a", "shop-1.2_3", "A" * 128, "0" * 32])
def test_a_well_formed_id_stays(value: str) -> None:
    assert accept_request_id(value) == value


@pytest.mark.parametrize("value", [None, "", "a" * 129, "a b", "a\n", "a/b", "ä", "a;b", "\u0661"])
def test_every_other_id_is_replaced(value: str | None) -> None:
    made = accept_request_id(value)
    assert made != value
    assert len(made) == 32
    assert accept_request_id(made) == made


def test_made_ids_differ() -> None:
    assert len({make_request_id() for _ in range(1000)}) == 1000


def test_the_current_id_belongs_to_its_task() -> None:
    async def answer(request_id: str) -> str | None:
        with use_request_id(request_id):
            await asyncio.sleep(0)
            return current_request_id()

    async def test() -> None:
        assert await asyncio.gather(answer("one"), answer("two")) == ["one", "two"]
        assert current_request_id() is None

    asyncio.run(test())

"""What is said of the golden pairs, and how often they are replayed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from fakes.dual_encoder import FakeTransport
from lychee_client import ModelNotReadyError
from lychee_server.gateway import health
from lychee_server.gateway.limits import TooBusyError
from lychee_server.gateway.service import Service
from lychee_server.gateway.settings import GatewaySettings
from lychee_server.gateway.status.golden import PAUSE_S, GoldenReplay, describe_golden

PAIRS = [{"query": {"text": "a"}, "document": {"text": "b"}, "relevance_score": 0.0}]


@pytest.fixture(autouse=True)
def fast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LYCHEE_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(health, "POLL_S", 0.01)


def run(work: Callable[[Service], Awaitable[None]], transport: FakeTransport) -> None:
    async def main() -> None:
        service = Service(GatewaySettings(), transport=transport)
        await service.start()
        try:
            await work(service)
        finally:
            await service.aclose()

    asyncio.run(main())


async def reach(service: Service, state: str) -> None:
    async with asyncio.timeout(10):
        while service.health.state != state:
            await asyncio.sleep(0.005)


def test_a_lost_triton_takes_the_verdict_with_it_until_the_pairs_matched_again() -> None:
    transport = FakeTransport()

    async def look(service: Service) -> None:
        assert describe_golden(service.health).state == "never"
        await reach(service, "ready")
        assert describe_golden(service.health).state == "passed"
        transport.live = False
        await reach(service, "unavailable")
        lost = describe_golden(service.health)
        assert lost.state == "outdated"
        assert lost.checked_at is not None
        assert lost.lost_at is not None
        assert lost.lost_at >= lost.checked_at
        transport.live = True
        await reach(service, "ready")
        back = describe_golden(service.health)
        assert (back.state, back.lost_at) == ("passed", None)
        assert back.checked_at is not None
        assert back.checked_at > lost.checked_at

    run(look, transport)


def test_pairs_that_do_not_match_are_told_with_their_numbers() -> None:
    async def look(service: Service) -> None:
        await reach(service, "degraded")
        told = describe_golden(service.health)
        assert (told.state, told.tolerance, len(told.pairs)) == ("failed", 0.02, 1)
        assert told.pairs[0].measured is not None
        assert told.max_abs_error == pytest.approx(told.pairs[0].measured)

    run(look, FakeTransport(manifest={"golden_pairs": {"tolerance": 0.02, "pairs": PAIRS}}))


def test_one_replay_at_a_time_and_a_pause_behind_each() -> None:
    now_s = [100.0]

    async def look(service: Service) -> None:
        await reach(service, "ready")
        before = service.health.golden_checked_at
        replay = GoldenReplay(service.health, lambda: now_s[0])
        first = asyncio.create_task(replay.run())
        await asyncio.sleep(0)
        with pytest.raises(TooBusyError, match="are being replayed"):
            await replay.run()
        told = await first
        assert (told.state, told.checked_at == before) == ("passed", False)
        with pytest.raises(TooBusyError, match="a moment ago") as caught:
            await replay.run()
        assert caught.value.retry_after_s == PAUSE_S
        now_s[0] += PAUSE_S
        assert (await replay.run()).state == "passed"

    run(look, FakeTransport())


def test_replay_without_triton_is_an_error_and_no_old_verdict() -> None:
    transport = FakeTransport()

    async def look(service: Service) -> None:
        await reach(service, "ready")
        transport.live = False
        with pytest.raises(ModelNotReadyError, match="were not replayed"):
            await GoldenReplay(service.health).run()

    run(look, transport)

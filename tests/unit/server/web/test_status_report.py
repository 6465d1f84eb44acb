"""What the tab Status shows, on a server in this process."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fakes.dual_encoder import FakeTransport
from lychee_client import MemoryEmbeddingCache, ModelStatus
from lychee_server import state
from lychee_server.gateway.service import Service
from lychee_server.gateway.settings import GatewaySettings
from lychee_server.processes import ProcessId
from lychee_server.status import ProcessMemory
from lychee_server.web import status_report
from lychee_server.web.language import LANGUAGES, Words
from lychee_server.web.status_report import StatusReport, collect_status, describe_settings
from lychee_server.web.status_result import render_status


@pytest.fixture
def words() -> Words:
    return Words(SimpleNamespace())  # type: ignore[arg-type]


async def do_nothing(service: Service) -> None:
    """Leave the service as it is."""


def collect(
    transport: FakeTransport | None = None,
    before: Callable[[Service], Awaitable[None]] = do_nothing,
    **settings: Any,
) -> StatusReport:
    """Return the report of a gateway that has been started, once `before` is done with it."""

    async def run() -> StatusReport:
        cache = MemoryEmbeddingCache(2**20)
        service = Service(GatewaySettings(**settings), transport=transport or FakeTransport(), cache=cache)
        service.metrics.watch_cache(cache)
        await service.start()
        try:
            if transport is None or transport.live:
                await service.health.require(5.0)
            await before(service)
            return await collect_status(service)
        finally:
            await service.aclose()

    return asyncio.run(run())


async def rank_twice(service: Service) -> None:
    for _ in range(2):
        await service.rerank("q", ["a", "b", "c"], {})


def test_report_of_a_ready_gateway_names_model_traffic_cache_and_golden_pairs() -> None:
    report = collect(before=rank_twice)
    assert (report.state, report.reason, report.triton.live) == ("ready", None, True)
    assert report.manifest is not None
    assert report.manifest.model_id == "fake"
    assert report.models["text_encoder"].requests > 0
    assert report.models["text_encoder"].queue_ms == pytest.approx(1.0)
    assert report.models["text_encoder"].compute_ms == pytest.approx(2.0)
    assert report.traffic["totals"]["documents"] == 6
    assert report.golden is not None
    assert report.golden.passed
    assert report.golden_checked_at is not None
    assert report.memory.gateway > 2**20
    assert report.versions["Triton"] == "0"
    assert "lychee-rerank-server" in report.versions


def test_report_of_a_gateway_without_triton_says_so(words: Words) -> None:
    transport = FakeTransport()
    transport.live = False
    report = collect(transport)
    assert (report.triton.live, report.manifest, report.models, report.golden) == (False, None, {}, None)
    rendered = render_status(words, report, 5)
    for language in LANGUAGES:
        assert words.say("status.away", language) in rendered
        assert words.say("status.golden_never", language) in rendered


def test_server_that_does_not_answer_in_time_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_report, "ANSWER_TIMEOUT_S", 0.01)

    async def hang(service: Service) -> None:
        async def never() -> Any:
            await asyncio.Event().wait()

        for name in ("server_status", "model_timings", "manifest"):
            setattr(service, name, never)

    report = collect(before=hang)
    assert (report.triton.live, report.manifest, report.models) == (False, None, {})


def test_rendered_report_shows_the_figures_in_both_languages(words: Words) -> None:
    rendered = render_status(words, collect(before=rank_twice), 5)
    for language in LANGUAGES:
        for key in ("ready", "traffic", "models", "cache", "memory", "golden", "settings", "versions"):
            assert words.say(f"status.{key}", language) in rendered
    assert "text_encoder" in rendered
    assert "fake" in rendered


def test_cache_that_is_switched_off_and_one_in_redis_are_told(words: Words) -> None:
    report = collect()
    off = dataclasses.replace(report, traffic={**report.traffic, "cache": None})
    assert words.say("status.cache_off", "en") in render_status(words, off, 5)
    cache = {**report.traffic["cache"], "backend": "redis", "entries": None, "bytes": None, "max_bytes": None}
    shared = dataclasses.replace(report, traffic={**report.traffic, "cache": {**cache, "hits": 3, "misses": 1}})
    rendered = render_status(words, shared, 5)
    assert "75.0% (3 of 4)" in rendered
    assert words.say("status.cache_entries", "en") not in rendered


def test_settings_with_secrets_are_never_shown(words: Words, tmp_path: Path) -> None:
    secret = "canary-7c1"
    settings = GatewaySettings(
        api_keys=(secret,),
        api_keys_file=tmp_path / secret,
        calibration=tmp_path / secret,
        redis_url=f"redis://:{secret}@cache/0",
        error_log=tmp_path / secret,
        image_hosts=("images.example.org",),
    )
    shown = describe_settings(settings)
    assert secret not in str(shown)
    assert shown["api_keys"] is True
    assert shown["image_hosts"] == "images.example.org"
    report = dataclasses.replace(collect(), settings=shown)
    assert secret not in render_status(words, report, 5)


def test_every_setting_is_told(words: Words) -> None:
    shown = describe_settings(GatewaySettings())
    assert list(shown) == list(GatewaySettings.model_fields)
    assert (shown["max_documents"], shown["redis_url"], shown["calibration"]) == (1000, False, False)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("localhost:2", 7 * 2**20),
        ("127.0.0.1:2", 7 * 2**20),
        ("http://localhost:1", 7 * 2**20),
        ("localhost:9", None),
        ("triton:2", None),
    ],
)
def test_memory_of_triton_is_measured_only_where_it_is_the_one_of_this_machine(
    url: str, expected: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = ProcessId.of(os.getpid())
    state.write_state(state.ServerState(own.pid, own.start_ticks, "marker", "127.0.0.1", 1, 2, 3, "models", "log"))
    processes = (ProcessMemory("a", 1, 0, 3 * 2**20), ProcessMemory("b", 2, 0, 4 * 2**20))
    monkeypatch.setattr(status_report, "read_memory", lambda marker: processes)
    assert status_report._measure_memory(url).triton == expected


def test_what_the_server_says_is_escaped(words: Words) -> None:
    report = collect()
    bad = ModelStatus("<b>model", "<i>1", False, "<script>alert(1)</script>")
    triton = dataclasses.replace(report.triton, models=(bad,))
    rendered = render_status(words, dataclasses.replace(report, triton=triton, reason="<img src=x>"), 5)
    for piece in ("<b>model", "<i>1", "<script>", "<img"):
        assert piece not in rendered


@pytest.mark.parametrize(("seconds", "expected"), [(59, "0 min 59 s"), (3_700, "1 h 1 min"), (200_000, "2 d 7 h")])
def test_uptime_is_readable(seconds: int, expected: str, words: Words) -> None:
    assert expected in render_status(words, dataclasses.replace(collect(), uptime_s=seconds), 5)

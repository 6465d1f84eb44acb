"""What the status says, on a server in this process."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from fakes.dual_encoder import FakeTransport
from fakes.server_state import make_state, make_triton
from lychee_client import MemoryEmbeddingCache
from lychee_server import state
from lychee_server.gateway.service import Service
from lychee_server.gateway.settings import GatewaySettings
from lychee_server.gateway.status import report as module
from lychee_server.gateway.status.answer import StatusAnswer
from lychee_server.gateway.status.recent_errors import RecentErrors
from lychee_server.gateway.status.report import collect_status, describe_settings
from lychee_server.processes import ProcessId
from lychee_server.status import ProcessMemory, ServedModelState


async def do_nothing(service: Service) -> None:
    """Leave the service as it is."""


def collect(
    transport: FakeTransport | None = None,
    before: Callable[[Service], Awaitable[None]] = do_nothing,
    **settings: Any,
) -> StatusAnswer:
    """Return the status of a gateway that has been started, once `before` is done with it."""

    async def run() -> StatusAnswer:
        cache = MemoryEmbeddingCache(2**20)
        service = Service(GatewaySettings(**settings), transport=transport or FakeTransport(), cache=cache)
        service.metrics.watch_cache(cache)
        await service.start()
        try:
            if transport is None or transport.live:
                await service.health.require(5.0)
            await before(service)
            return await collect_status(service, RecentErrors())
        finally:
            await service.aclose()

    return asyncio.run(run())


async def rank_twice(service: Service) -> None:
    for _ in range(2):
        await service.rerank("q", ["a", "b", "c"], {})


def write_local_state(log_path: str = "log") -> None:
    """Say that this very process is the Triton that runs here."""
    own = ProcessId.of(os.getpid())
    state.write_state(make_state(make_triton(pid=own.pid, start_ticks=own.start_ticks, log_path=log_path)))


def test_status_of_a_ready_gateway_names_model_traffic_cache_and_golden_pairs() -> None:
    status = collect(before=rank_twice)
    assert (status.state, status.reason, status.triton_live) == ("ready", None, True)
    assert status.model is not None
    assert status.model.model_id == "fake"
    models = {model.name: model for model in status.models}
    assert models["text_encoder"].ready
    assert models["text_encoder"].requests > 0
    assert models["text_encoder"].queue_ms == pytest.approx(1.0)
    assert models["text_encoder"].compute_ms == pytest.approx(2.0)
    assert status.traffic.totals.documents == 6
    assert status.traffic.cache is not None
    assert (status.golden.state, status.golden.lost_at) == ("passed", None)
    assert status.golden.checked_at is not None
    assert status.memory.gateway > 2**20
    assert status.versions["Triton"] == "0"
    assert "lychee-rerank-server" in status.versions
    assert [policy.name for policy in status.policies] == ["strict", "balanced", "exploratory"]
    assert (status.default_policy, status.pid) == ("balanced", os.getpid())
    assert len(status.series.calls_per_s) * status.series.step_s == 15 * 60


def test_status_without_triton_says_so() -> None:
    transport = FakeTransport()
    transport.live = False
    status = collect(transport)
    assert (status.triton_live, status.model, status.models, status.golden.state) == (False, None, [], "never")
    assert status.state in ("starting", "unavailable")


def test_golden_pairs_count_no_more_in_the_moment_in_which_triton_is_gone() -> None:
    transport = FakeTransport()

    async def lose(service: Service) -> None:
        transport.live = False  # the health has not noticed yet
        assert service.health.state == "ready"

    status = collect(transport, lose)
    assert (status.state, status.golden.state) == ("unavailable", "outdated")
    assert "does not answer" in str(status.reason)


def test_server_that_does_not_answer_in_time_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANSWER_TIMEOUT_S", 0.01)

    async def hang(service: Service) -> None:
        async def never() -> Any:
            await asyncio.Event().wait()

        for name in ("server_status", "model_timings", "manifest"):
            setattr(service, name, never)

    status = collect(before=hang)
    assert (status.triton_live, status.model, status.models) == (False, None, [])


def test_what_executes_a_model_is_what_its_process_says_before_what_was_configured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    configured = {model.name: model for model in collect().models}["text_encoder"]
    assert (configured.provider, configured.device) == ("cpu", "cpu")
    write_local_state()
    running = ServedModelState("text_encoder", "1", "READY", "", "CUDAExecutionProvider", "fp16", "twice as fast")
    monkeypatch.setattr(module, "read_models", lambda *arguments: (running,))
    models = {model.name: model for model in collect(triton_url="localhost:2").models}
    told = models["text_encoder"]
    assert (told.provider, told.precision, told.device) == ("cuda", "fp16", "gpu")
    assert told.chosen_because == "twice as fast"
    assert models["rerank_text"].provider is None


def test_secrets_and_paths_among_the_settings_are_never_shown(tmp_path: Path) -> None:
    secret = "canary-7c1"
    settings = GatewaySettings(
        api_keys=(secret,),
        api_keys_file=tmp_path / secret,
        calibration=tmp_path / secret,
        redis_url=f"redis://:{secret}@cache/0",
        error_log=tmp_path / secret,
        image_hosts=("images.example.org", "*.example.net"),
    )
    shown = {entry.name: entry for entry in describe_settings(settings)}
    assert list(shown) == list(GatewaySettings.model_fields)
    assert secret not in str(shown)
    hidden = {name for name, entry in shown.items() if entry.is_hidden}
    assert hidden == {"api_keys", "api_keys_file", "calibration", "experiment", "models", "redis_url", "error_log"}
    assert all(shown[name].value is (name not in ("experiment", "models")) for name in hidden)
    assert shown["image_hosts"].value == "images.example.org, *.example.net"
    assert shown["max_documents"].value == 1000


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
def test_triton_is_looked_at_only_where_it_is_the_one_of_this_machine(
    url: str, expected: int | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    log = tmp_path / "triton.log"
    log.write_text("I1127 fine\nE1127 21:21:44 first\nE1127 21:21:45 second\n", encoding="utf-8")
    write_local_state(str(log))
    processes = (ProcessMemory("a", 1, 0, 3 * 2**20), ProcessMemory("b", 2, 0, 4 * 2**20))
    monkeypatch.setattr(module, "read_memory", lambda marker: processes)
    monkeypatch.setattr(module, "read_models", lambda *arguments: ())
    status = collect(triton_url=url)
    assert status.memory.triton == expected
    lines = None if expected is None else ["E1127 21:21:45 second", "E1127 21:21:44 first"]
    assert status.errors.triton == lines

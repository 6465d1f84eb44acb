"""What `lychee doctor` says about the gateway of this machine."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from fakes.server_state import make_state, make_triton
from lychee_client.checks import CheckContext, CheckResult
from lychee_server import state
from lychee_server.doctor import gateway as gateway_checks
from lychee_server.gateway.settings import DEFAULT_PORT
from lychee_server.processes import ProcessId

OWN = psutil.Process()


@pytest.fixture(autouse=True)
def quiet_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody listen, and every gateway be ready."""
    monkeypatch.setattr(gateway_checks, "find_listeners", dict)
    monkeypatch.setattr(gateway_checks, "read_problem", lambda host, port: None)


def check(*, live: bool = False) -> CheckResult:
    """Return what is said about the gateway; a server of the page's libraries is a result of its own."""
    client: Any = SimpleNamespace(server_status=lambda: SimpleNamespace(live=live))
    gateway, page = gateway_checks.check_gateway(CheckContext(client, "localhost:8001"))
    assert page.name == "web page"
    return gateway


def write_gateway(**changes: Any) -> state.GatewayState:
    """Let this process pass for a server with a gateway."""
    gateway = dataclasses.replace(
        state.GatewayState(OWN.pid, ProcessId.of(OWN.pid).start_ticks, "127.0.0.1", 4321, "/log/gateway.log"), **changes
    )
    server = make_state(make_triton(pid=OWN.pid, start_ticks=ProcessId.of(OWN.pid).start_ticks), gateway=gateway)
    state.write_state(server)
    return gateway


def test_gateway_that_is_ready_passes() -> None:
    write_gateway()
    result = check()
    assert (result.verdict, result.seen) == ("ok", f"port 4321, pid {OWN.pid}: ready")


def test_gateway_that_is_not_ready_fails_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway_checks, "read_problem", lambda host, port: f"{host}:{port} has no Triton")
    write_gateway()
    result = check()
    assert result.verdict == "failed"
    assert result.seen.endswith("not ready: 127.0.0.1:4321 has no Triton")
    assert "/log/gateway.log" in result.advice


def test_gateway_that_ended_fails() -> None:
    write_gateway(start_ticks=ProcessId.of(OWN.pid).start_ticks - 100)
    result = check()
    assert result.verdict == "failed"
    assert "ended without `lychee stop`" in result.seen


def test_free_port_passes_without_a_gateway() -> None:
    assert check() == CheckResult("gateway", "ok", f"none was started; port {DEFAULT_PORT} is free")


@pytest.mark.parametrize(("live", "verdict"), [(False, "failed"), (True, "warning")])
def test_port_that_another_program_holds_is_named_with_the_option(
    live: bool, verdict: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway_checks, "find_listeners", lambda: {DEFAULT_PORT: (OWN.pid, "nginx")})
    result = check(live=live)
    assert (result.verdict, result.seen) == (verdict, f"port {DEFAULT_PORT} is taken by nginx, pid {OWN.pid}")
    assert "--port" in result.advice
    monkeypatch.setattr(gateway_checks, "find_listeners", lambda: {DEFAULT_PORT: (None, "another user's program")})
    assert check(live=live).seen.endswith("another user's program")


@pytest.mark.parametrize(("problem", "verdict"), [(None, "ok"), ("starting", "warning")])
def test_gateway_of_somebody_else_is_recognised(
    problem: str | None, verdict: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway_checks, "find_listeners", lambda: {DEFAULT_PORT: (7, "python")})
    monkeypatch.setattr(gateway_checks, "read_problem", lambda host, port: problem)
    command = ["/usr/bin/python", "-m", gateway_checks.MODULE]
    monkeypatch.setattr(gateway_checks.psutil, "Process", lambda pid: SimpleNamespace(cmdline=lambda: command))
    result = check()
    assert result.verdict == verdict
    assert "did not start here, pid 7" in result.seen


def test_missing_page_is_a_warning_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lychee_server.web.find_spec", lambda name: None)
    result = gateway_checks._check_page()
    assert result.verdict == "warning"
    assert "lychee-rerank-server[web]" in result.advice

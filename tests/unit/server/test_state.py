"""The state file."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from fakes.server_state import make_state, make_triton
from lychee_server import AlreadyRunningError, state
from lychee_server.processes import ProcessId


@pytest.fixture
def own_state() -> state.ServerState:
    """Describe this process as if it were a server."""
    own = ProcessId.of(os.getpid())
    return make_state(make_triton(pid=own.pid, start_ticks=own.start_ticks))


def changed(known: state.ServerState, **facts: Any) -> state.ServerState:
    """Return a server whose Triton is another one."""
    return dataclasses.replace(known, tritons=(dataclasses.replace(known.first, **facts),))


def test_what_is_written_is_read(own_state: state.ServerState) -> None:
    assert state.read_state() is None
    state.write_state(own_state)
    assert state.read_state() == own_state
    assert [path.name for path in state.state_path().parent.iterdir()] == ["server.json"]
    state.clear_state()
    state.clear_state()
    assert state.read_state() is None


def test_a_gateway_is_remembered_beside_its_server(own_state: state.ServerState) -> None:
    gateway = state.GatewayState(own_state.first.pid, own_state.first.start_ticks, "127.0.0.1", 7860, "gateway.log")
    state.write_state(dataclasses.replace(own_state, gateway=gateway))
    known = state.read_state()
    assert known is not None
    assert known.gateway == gateway
    assert known.gateway.is_running()
    assert not dataclasses.replace(gateway, start_ticks=gateway.start_ticks - 60).is_running()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": 1}', "null", '{"gateway": {"pid": 1}}'])
def test_a_damaged_file_is_no_state(own_state: state.ServerState, content: str) -> None:
    state.write_state(own_state)
    state.state_path().write_text(content, encoding="utf-8")
    assert state.read_state() is None


def test_a_pid_that_another_process_got_is_not_running(own_state: state.ServerState) -> None:
    assert own_state.is_running()
    assert not changed(own_state, start_ticks=own_state.first.start_ticks - 60).is_running()


def test_a_process_that_ended_is_not_running(own_state: state.ServerState) -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        ended = changed(own_state, pid=process.pid, start_ticks=ProcessId.of(process.pid).start_ticks)
        assert ended.is_running()
        process.kill()
        while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
            pass
        assert not ended.is_running()
    assert not ended.is_running()


def test_a_step_of_the_clock_changes_nothing(own_state: state.ServerState, monkeypatch: pytest.MonkeyPatch) -> None:
    uptime_s = own_state.first.process.uptime_s
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 86_400)
    monkeypatch.setattr(psutil, "boot_time", lambda: 1.0)  # the kernel derives it from the clock
    assert own_state.is_running()
    assert abs(own_state.first.process.uptime_s - uptime_s) < 60


def test_a_second_load_waits_outside() -> None:
    place = state.claim()
    with pytest.raises(AlreadyRunningError, match=rf"Another `lychee load` \(pid {os.getpid()}\) is starting"):
        state.claim()
    place.close()
    state.claim().close()


def test_two_state_folders_have_two_servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = state.claim()
    monkeypatch.setenv("LYCHEE_STATE_DIR", str(tmp_path / "other"))
    state.claim().close()
    place.close()


@pytest.mark.parametrize("damage", ["deleted", "damaged", "stale"])
def test_a_running_server_is_known_whatever_became_of_its_file(own_state: state.ServerState, damage: str) -> None:
    state.write_state(own_state)
    place = state.claim()
    place.answer(own_state.format, lambda line: iter(()))
    if damage == "deleted":
        state.clear_state()
    elif damage == "damaged":
        state.state_path().write_bytes(b"\xff\x00{")
    else:
        state.write_state(changed(own_state, pid=1, start_ticks=1))
    assert state.read_state() == own_state
    with pytest.raises(AlreadyRunningError, match=f"A server runs already: pid {own_state.first.pid}"):
        state.claim()
    place.close()


def test_restarts_and_the_end_are_remembered(own_state: state.ServerState) -> None:
    restarts = {"triton": state.Restarts(2, "it ended by signal 9", 1.5)}
    told = dataclasses.replace(own_state, restarts=restarts, gave_up="too often", supervisor=own_state.first.process)
    state.write_state(told)
    assert state.read_state() == told


def test_a_server_whose_triton_is_away_runs_while_its_supervisor_does(own_state: state.ServerState) -> None:
    away = changed(own_state, start_ticks=own_state.first.start_ticks - 60)
    assert not away.is_running()
    assert dataclasses.replace(away, supervisor=own_state.first.process).is_running()

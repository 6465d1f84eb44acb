"""The state file."""

from __future__ import annotations

import dataclasses
import subprocess

import psutil
import pytest
from lychee_server import AlreadyRunningError, state


@pytest.fixture
def own_state() -> state.ServerState:
    """Describe this process as if it were a server."""
    own = psutil.Process()
    return state.ServerState(own.pid, own.create_time(), "lychee_x_", "127.0.0.1", 1, 2, 3, "models", "triton.log")


def test_what_is_written_is_read(own_state: state.ServerState) -> None:
    assert state.read_state() is None
    state.write_state(own_state)
    assert state.read_state() == own_state
    assert [path.name for path in state.state_path().parent.iterdir()] == ["server.json"]
    state.clear_state()
    state.clear_state()
    assert state.read_state() is None


def test_a_gateway_is_remembered_beside_its_server(own_state: state.ServerState) -> None:
    gateway = state.GatewayState(own_state.pid, own_state.create_time, "127.0.0.1", 7860, "gateway.log")
    state.write_state(dataclasses.replace(own_state, gateway=gateway))
    known = state.read_state()
    assert known is not None
    assert known.gateway == gateway
    assert known.gateway.is_running()
    assert not dataclasses.replace(gateway, create_time=gateway.create_time - 60).is_running()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": 1}', "null", '{"gateway": {"pid": 1}}'])
def test_a_damaged_file_is_no_state(own_state: state.ServerState, content: str) -> None:
    state.write_state(own_state)
    state.state_path().write_text(content, encoding="utf-8")
    assert state.read_state() is None


def test_a_pid_that_another_process_got_is_not_running(own_state: state.ServerState) -> None:
    assert own_state.is_running()
    assert not dataclasses.replace(own_state, create_time=own_state.create_time - 60).is_running()


def test_a_process_that_ended_is_not_running(own_state: state.ServerState) -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        ended = dataclasses.replace(own_state, pid=process.pid, create_time=psutil.Process(process.pid).create_time())
        assert ended.is_running()
        process.kill()
        while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
            pass
        assert not ended.is_running()
    assert not ended.is_running()


def test_a_second_load_waits_outside() -> None:
    with state.lock_state(), pytest.raises(AlreadyRunningError, match=r"Another `lychee load`"), state.lock_state():
        pass
    with state.lock_state():
        pass

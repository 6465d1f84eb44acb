"""Processes are killed and stopped under a server: it comes back by itself, answers right, and leaves nothing."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from http.client import HTTPException

import pytest
from lychee_server import state

from chaos.running_server import RunningServer, find_leftovers, run, wait_for

pytestmark = [pytest.mark.triton, pytest.mark.slow]
STUBS = ("text_encoder", "vision_encoder")


@pytest.mark.parametrize("target", ["triton", *STUBS, "gateway"])
def test_a_killed_process_comes_back_by_itself(supervised: RunningServer, target: str) -> None:
    name = "gateway" if target == "gateway" else "triton"
    before = supervised.count_restarts(name)
    killed = supervised.send(target, signal.SIGKILL)
    supervised.wait_until_back(target, killed)
    supervised.check_tidy()
    told = run("status")
    assert f"restarts {name} {before + 1}" in told.stdout


def test_callers_wait_for_a_gateway_that_is_started_again(supervised: RunningServer) -> None:
    killed = supervised.send("gateway", signal.SIGKILL)
    status, answer = supervised.rerank(timeout_s=60)
    assert status in (200, 503), answer
    supervised.wait_until_back("gateway", killed)


@pytest.mark.chaos
@pytest.mark.parametrize("target", ["scoring_heads", "client_assets", *STUBS, "triton", "gateway"])
def test_a_stopped_process_is_replaced(supervised: RunningServer, target: str) -> None:
    stopped = supervised.send(target, signal.SIGSTOP)
    supervised.wait_until_back(target, stopped)
    supervised.check_tidy()


@pytest.mark.chaos
@pytest.mark.parametrize("order", [("triton", "gateway"), ("gateway", "triton"), ("text_encoder", "triton", "gateway")])
def test_all_are_killed_at_once_twice(supervised: RunningServer, order: tuple[str, ...]) -> None:
    for _ in range(2):
        killed = {target: supervised.find_pid(target) for target in order}
        for pid in killed.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for target, pid in killed.items():
            supervised.wait_until_back(target, pid)
        supervised.check_tidy()


@pytest.mark.chaos
def test_no_answer_under_load_is_wrong_or_empty(supervised: RunningServer) -> None:
    ended = threading.Event()
    wrong: list[BaseException] = []
    right = []

    def call() -> None:
        while not ended.is_set():
            try:
                right.append(supervised.answers_right())
            except (OSError, HTTPException):
                pass
            except AssertionError as error:
                wrong.append(error)

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    for target in ("text_encoder", "triton", "gateway"):
        supervised.wait_until_back(target, supervised.send(target, signal.SIGKILL))
        time.sleep(1)
    ended.set()
    for caller in callers:
        caller.join()
    assert not wrong
    assert any(right)


# The last ones end the server.


def test_a_lost_or_damaged_state_file_loses_nothing(supervised: RunningServer) -> None:
    known = supervised.state
    for damage in (lambda path: path.unlink(), lambda path: path.write_text('{"pid": 1', encoding="utf-8")):
        damage(state.state_path())
        assert run("status").stdout.startswith(f"Ready: pid {known.first.pid}")
        second = run("load", "--repository", known.first.repository)
        assert (second.returncode, f"A server runs already: pid {known.first.pid}" in second.stderr) == (1, True)
        assert supervised.state == known
    assert supervised.answers_right()


@pytest.mark.parametrize(
    "stopped_first",
    [
        (),
        pytest.param(("triton",), marks=pytest.mark.chaos),
        pytest.param(("text_encoder", "gateway"), marks=pytest.mark.chaos),
    ],
)
def test_a_killed_supervisor_leaves_nothing(supervised: RunningServer, stopped_first: tuple[str, ...]) -> None:
    port = ("--port", str(supervised.gateway.port))
    repository = supervised.state.first.repository
    for target in stopped_first:
        supervised.send(target, signal.SIGSTOP)
    supervised.send("supervisor", signal.SIGKILL)
    wait_for(lambda: not find_leftovers(), "the end of all processes")
    status = run("status")
    assert status.returncode == 3
    free = ("--http-port", "0", "--grpc-port", "0", "--metrics-port", "0")
    again = run("load", "--repository", repository, *free, *port, "--no-web", "--max-restarts", "100")
    assert again.returncode == 0, again.stderr
    supervised.check_tidy()


@pytest.mark.chaos
def test_a_stopped_supervisor_can_be_stopped_for_good(supervised: RunningServer) -> None:
    supervised.send("supervisor", signal.SIGSTOP)
    assert supervised.answers_right()
    stopped = run("stop")
    assert stopped.returncode == 0
    assert find_leftovers() == []


def test_stop_after_the_guard_was_killed_leaves_nothing(repository: object, supervised: RunningServer) -> None:
    if state.read_state() is not None:
        supervised.send("guard", signal.SIGKILL)
        wait_for(lambda: not find_leftovers(), "the end of all processes")
    assert run("stop").returncode == 0
    assert run("status").returncode == 3

"""`lychee load`, `lychee status` and `lychee stop`, as a user runs them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from fakes.server_state import make_state, make_triton
from lychee_server import state
from lychee_server.processes import ProcessId, find_processes
from lychee_server.supervision import stop_everything

from .commands import FREE_PORTS, LYCHEE, load, run

pytestmark = pytest.mark.triton
WAIT_S = 120.0


def wait_for(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + WAIT_S
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
    return found


@pytest.fixture(autouse=True)
def _stop_whatever_is_left(own_state: None) -> Iterator[None]:
    yield
    stop_everything(state.read_state())


def test_load_status_stop(tiny_repository: Path) -> None:
    loaded = load(tiny_repository)
    assert loaded.returncode == 0, loaded.stderr
    known = state.read_state()
    assert known is not None
    for expected in ("Ready after", str(known.first.pid), f"127.0.0.1:{known.first.grpc_port}", known.first.log_path):
        assert expected in loaded.stdout

    shown = run("status")
    assert shown.returncode == 0
    assert "Ready" in shown.stdout
    status = json.loads(run("status", "--json").stdout)
    assert (status["running"], status["healthy"], status["pid"]) == (True, True, known.first.pid)
    (model,) = status["models"]
    assert (model["name"], model["state"], model["provider"]) == ("constant", "READY", "CPUExecutionProvider")
    assert [process["name"] for process in status["processes"]] == ["tritonserver", "constant_0_0"]
    assert status["rss_bytes"] >= status["pss_bytes"] > 0

    second = load(tiny_repository)
    assert second.returncode == 1
    assert f"A server runs already: pid {known.first.pid}" in second.stderr

    stopped = run("stop")
    assert stopped.returncode == 0
    assert f"pid {known.first.pid} and its 1 stubs" in stopped.stdout
    assert find_processes(known.marker) == []
    assert run("status").returncode == 3
    again = run("stop")
    assert (again.returncode, again.stdout) == (0, "No server is running.\n")


def test_a_server_that_was_killed_is_cleaned_up(tiny_repository: Path) -> None:
    assert load(tiny_repository).returncode == 0
    known = state.read_state()
    assert known is not None
    assert known.supervisor is not None
    for pid in (psutil.Process(known.supervisor.pid).ppid(), known.supervisor.pid):  # nobody is left to sweep up
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not known.is_running())
    status = run("status")
    assert status.returncode == 3
    assert f"pid {known.first.pid} has ended" in status.stdout
    stopped = run("stop")
    assert stopped.returncode == 0
    assert "Removed its state file" in stopped.stdout
    assert find_processes(known.marker) == []
    assert not list(Path("/dev/shm").glob(f"{known.marker}*"))
    assert state.read_state() is None


def test_a_stale_state_file_does_not_block_a_load(tiny_repository: Path) -> None:
    own = ProcessId.of(os.getpid())
    state.write_state(make_state(make_triton(pid=own.pid, start_ticks=own.start_ticks - 1000)))
    assert run("status").returncode == 3
    loaded = load(tiny_repository)
    assert loaded.returncode == 0, loaded.stderr
    assert f"pid {own.pid} ended without `lychee stop`" in loaded.stderr
    assert run("stop").returncode == 0


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("when", ["loading", "serving"])
def test_a_signal_stops_everything(
    tiny_repository: Path, add_model: Callable[..., Path], sent: signal.Signals, code: int, when: str
) -> None:
    command = [LYCHEE, "load", "--foreground", "--repository", str(tiny_repository), *FREE_PORTS]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            known = wait_for(state.read_state)
            if when == "serving":
                assert process.stdout is not None
                assert any("Ctrl-C stops it" in line for line in iter(process.stdout.readline, ""))
            process.send_signal(sent)
            assert process.wait(WAIT_S) == code
        finally:
            process.terminate()  # a shell may have had SIGINT ignored: fail, and do not wait forever
    assert find_processes(known.marker) == []
    assert state.read_state() is None


def test_a_signal_stops_a_background_server_that_still_loads(tiny_repository: Path) -> None:
    command = [LYCHEE, "load", "--repository", str(tiny_repository), *FREE_PORTS]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        known = wait_for(state.read_state)
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT_S) == 143
    assert find_processes(known.marker) == []
    assert state.read_state() is None


def test_foreground_starts_triton_again_and_gives_up_in_the_end(tiny_repository: Path) -> None:
    command = [LYCHEE, "load", "--foreground", "--repository", str(tiny_repository), *FREE_PORTS]
    command += ["--max-restarts", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert any("Ctrl-C stops it" in line for line in iter(process.stdout.readline, ""))
        first = state.read_state()
        assert first is not None
        os.kill(first.first.pid, signal.SIGKILL)
        second = wait_for(lambda: (known := state.read_state()) and known.first.pid != first.first.pid and known)
        assert second.first.http_port == first.first.http_port
        os.kill(second.first.pid, signal.SIGKILL)
        assert process.wait(WAIT_S) == 1
        assert process.stderr is not None
        said = process.stderr.read()
    assert "triton failed: it ended by signal 9; starting it again" in said
    assert "started again 1 times within 10 minutes already; gave up" in said
    assert find_processes(first.marker) == []
    status = run("status")
    assert (status.returncode, "gave up" in status.stdout) == (3, True)


def test_the_reason_of_a_failed_load_is_printed(tiny_repository: Path, add_model: Callable[..., Path]) -> None:
    path = add_model("damaged")
    path.write_bytes(b"not a model")
    failed = load(tiny_repository)
    assert failed.returncode == 1
    assert f"damaged: {path} (11 bytes) is not a model" in failed.stderr
    assert "lychee export" in failed.stderr
    assert state.read_state() is None


def test_a_missing_file_is_found_before_the_start(tiny_repository: Path, add_model: Callable[..., Path]) -> None:
    path = add_model("lookup")
    path.unlink()
    failed = load(tiny_repository)
    assert failed.returncode == 2
    assert str(path) in failed.stderr
    assert "lychee export" in failed.stderr


def test_the_exported_repository_passes_its_golden_pairs(repository: Path) -> None:
    loaded = load(repository, "--no-gateway")
    assert loaded.returncode == 0, loaded.stderr
    for expected in ("text_encoder: ", "vision_encoder: ", "golden pairs: off by"):
        assert expected in loaded.stdout
    assert run("stop").returncode == 0

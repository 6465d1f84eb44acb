"""TritonServer from start to stop, and what goes wrong in between."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from lychee_server import LycheeServerError, PortInUseError, ServerStartError, TritonServer
from lychee_server.processes import SHARED_MEMORY, find_processes, is_server
from lychee_server.triton_command import SHARED_MEMORY_BYTES

pytestmark = pytest.mark.triton
WAIT_S = 20.0


def make_server(repository: Path, **options: object) -> TritonServer:
    return TritonServer(repository, http_port=0, grpc_port=0, metrics_port=0, **options)  # type: ignore[arg-type]


def leftovers(marker: str) -> list[object]:
    return [*find_processes(marker), *Path("/dev/shm").glob(f"{marker}*")]


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def start_failing(repository: Path) -> ServerStartError:
    """Return the error of a start that must fail, after checking that nothing is left."""
    server = make_server(repository)
    with pytest.raises(ServerStartError) as caught, server:
        pass
    assert leftovers(server.marker) == []
    return caught.value


def test_nothing_is_left_after_the_context(tiny_repository: Path) -> None:
    with make_server(tiny_repository) as server:
        assert [is_server(process) for process in find_processes(server.marker)] == [True, False]
    assert leftovers(server.marker) == []


def test_nothing_is_left_after_an_exception(tiny_repository: Path) -> None:
    with pytest.raises(KeyboardInterrupt), make_server(tiny_repository) as server:
        raise KeyboardInterrupt
    assert leftovers(server.marker) == []


def test_it_listens_on_this_machine_only(server: TritonServer) -> None:
    assert server.pid is not None
    listening = [c for c in psutil.Process(server.pid).net_connections() if c.status == psutil.CONN_LISTEN]
    assert {c.laddr.ip.removeprefix("::ffff:") for c in listening} == {"127.0.0.1"}
    assert {c.laddr.port for c in listening} == {server.http_port, server.grpc_port, server.metrics_port}


def test_a_damaged_file_is_the_reason(tiny_repository: Path, add_model: Callable[..., Path]) -> None:
    path = add_model("damaged")
    path.write_bytes(path.read_bytes()[:50])
    error = start_failing(tiny_repository)
    assert error.model_reasons.keys() == {"damaged"}
    assert str(path) in error.model_reasons["damaged"]
    assert "(50 bytes)" in error.model_reasons["damaged"]
    assert "lychee export" in error.model_reasons["damaged"]
    assert error.model_reasons["damaged"] in str(error)


def test_a_configuration_that_does_not_fit_is_the_reason(tiny_repository: Path, add_model: Callable[..., Path]) -> None:
    path = add_model("misfit")
    config = path.parents[1] / "config.pbtxt"
    config.write_text(config.read_text(encoding="utf-8").replace('"ids"', '"idz"'), encoding="utf-8")
    assert "inputs are ['ids'], config.pbtxt has ['idz']" in start_failing(tiny_repository).model_reasons["misfit"]


def test_each_failed_model_has_its_own_reason(tiny_repository: Path, add_model: Callable[..., Path]) -> None:
    add_model("magic", "optimization { execution_accelerators { cpu_execution_accelerator { name: 'magic' } } }")
    add_model("threads", "parameters { key: 'intra_op_thread_count' value { string_value: 'two' } }")
    add_model("kept_out", "version_policy { specific { versions: 7 } }")
    reasons = start_failing(tiny_repository).model_reasons
    assert reasons.keys() == {"kept_out", "magic", "threads"}
    assert "unknown Execution Accelerator 'magic'" in reasons["magic"]
    assert "parameter intra_op_thread_count is 'two'" in reasons["threads"]
    assert "at least one version must be available" in reasons["kept_out"]


def test_one_that_hangs_while_it_loads_is_started_once_more(
    tiny_repository: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    wait = TritonServer.wait_until_ready
    seen: list[int] = []

    def wait_for_one_that_hangs(server: TritonServer) -> None:
        assert server.process_id is not None
        seen.append(server.process_id.pid)
        if len(seen) == 1:
            os.kill(seen[0], signal.SIGSTOP)
            wait(server, 0.5)
        wait(server)

    monkeypatch.setattr(TritonServer, "wait_until_ready", wait_for_one_that_hangs)
    with make_server(tiny_repository) as server:
        assert server.is_up()
        assert len(set(seen)) == 2
        assert not psutil.pid_exists(seen[0])
    assert "not ready after 0.5 s" in caplog.text


def test_a_death_while_loading_shows_the_log(tiny_repository: Path) -> None:
    server = make_server(tiny_repository)
    try:
        server.start()
        wait_for(lambda: find_processes(server.marker))
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        with pytest.raises(ServerStartError, match=r"Triton ended by signal 9 while loading"):
            server.wait_until_ready()
    finally:
        server.stop()
    assert leftovers(server.marker) == []


def test_time_that_runs_out_is_an_error(tiny_repository: Path) -> None:
    server = make_server(tiny_repository)
    try:
        server.start()
        with pytest.raises(ServerStartError, match=r"not ready after 0 s.*--timeout-s"):
            server.wait_until_ready(timeout_s=0)
    finally:
        server.stop()
    assert leftovers(server.marker) == []


def test_a_taken_port_is_found_before_the_start(tiny_repository: Path, server: TritonServer) -> None:
    second = TritonServer(tiny_repository, http_port=0, grpc_port=server.grpc_port, metrics_port=0)
    with pytest.raises(PortInUseError, match=rf"{server.grpc_port}.*tritonserver.*--grpc-port") as caught:
        second.start()
    assert caught.value.port == server.grpc_port
    assert second.pid is None


def test_the_stubs_of_a_killed_server_end_and_leave_no_shared_memory(tiny_repository: Path) -> None:
    with make_server(tiny_repository) as server:
        assert server.pid is not None
        assert leftovers(server.marker) != []
        os.kill(server.pid, signal.SIGKILL)
        wait_for(lambda: leftovers(server.marker) == [])


def test_stop_cleans_up_after_a_killed_server_whose_stubs_stand_still(tiny_repository: Path) -> None:
    with make_server(tiny_repository) as server:
        stubs = [process for process in find_processes(server.marker) if not is_server(process)]
        assert server.pid is not None
        for stub in stubs:
            stub.suspend()
        os.kill(server.pid, signal.SIGKILL)
        report = server.stop()
    assert {stub.pid for stub in stubs} <= {*report.ended, *report.killed}
    assert report.shared_memory_regions > 0
    assert leftovers(server.marker) == []


def test_stop_twice_and_start_twice(tiny_repository: Path) -> None:
    server = make_server(tiny_repository)
    server.stop()
    with server, pytest.raises(LycheeServerError, match="started before"):
        server.start()
    server.stop()


def test_a_server_lives_on_after_the_thread_that_started_it(tiny_repository: Path) -> None:
    server = make_server(tiny_repository)
    try:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(server.start).result()
        server.wait_until_ready()
    finally:
        server.stop()


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
def test_a_server_ends_with_the_process_that_owns_it(tiny_repository: Path, sent: signal.Signals) -> None:
    program = (
        "import sys, time\nfrom lychee_server import TritonServer\n"
        "with TritonServer(sys.argv[1], http_port=0, grpc_port=0, metrics_port=0) as server:\n"
        "    print(server.marker, flush=True)\n    time.sleep(60)"
    )
    command = [sys.executable, "-c", program, str(tiny_repository)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        marker = owner.stdout.readline().strip()
        assert find_processes(marker)
        owner.send_signal(sent)
    wait_for(lambda: not find_processes(marker))


def test_processes_begin_with_room_for_the_tokenizer_where_there_is_some(server: TritonServer) -> None:
    total = shutil.disk_usage(SHARED_MEMORY).total
    least = next((size for there, size in SHARED_MEMORY_BYTES.items() if total >= there), 2**20)
    sizes = [region.stat().st_size for region in SHARED_MEMORY.glob(f"{server.marker}*")]
    assert len(sizes) == len(list(server.repository.glob("*/[0-9]*/model.*")))
    assert min(sizes) >= least

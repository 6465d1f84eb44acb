"""`lychee bulk` as a process that is killed, stopped, or loses its server."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from lychee_client import LycheeClient
from lychee_server import TritonServer

from .bulk_runs import (
    WAIT_S,
    Rows,
    check_exactly_once,
    command,
    environment,
    make_rows,
    parts,
    read_output,
    score_one_by_one,
    wait_for,
    write_jsonl,
)

pytestmark = [pytest.mark.triton, pytest.mark.slow]
COUNT = 320
PART_ROWS = 32
OPTIONS = ("--keep-columns", "n", "--part-rows", str(PART_ROWS))


@pytest.fixture(scope="module")
def rows() -> Rows:
    return make_rows(COUNT, seed=1)


@pytest.fixture(scope="module")
def scores(client: LycheeClient, rows: Rows) -> list[float]:
    return score_one_by_one(client, rows)


@pytest.fixture
def source(tmp_path: Path, rows: Rows) -> Path:
    return write_jsonl(tmp_path / "pairs.jsonl", rows)


@contextmanager
def started(words: list[str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment())
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=WAIT_S)


def is_over(children: list[psutil.Process]) -> bool:
    for child in children:
        with suppress(psutil.NoSuchProcess):  # it may end between two questions
            if child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
                return False
    return True


def count_documents(client: LycheeClient, server: TritonServer) -> int:
    """Return how many pairs of texts the server has scored."""
    import tritonclient.grpc

    with tritonclient.grpc.InferenceServerClient(server.grpc_url) as triton:
        statistics = triton.get_inference_statistics("scoring_head_text", headers={"triton-key": server.key})
    return int(sum(model.inference_count for model in statistics.model_stats))


def test_a_killed_run_goes_on_and_every_row_is_there_once(
    server: TritonServer, client: LycheeClient, source: Path, rows: Rows, scores: list[float], tmp_path: Path
) -> None:
    output = tmp_path / "scores"
    before = count_documents(client, server)
    with started(command(source, output, server.grpc_url, *OPTIONS)) as process:
        wait_for(lambda: len(parts(output)) >= 3)
        children = psutil.Process(process.pid).children(recursive=True)
        assert children
        process.send_signal(signal.SIGKILL)
        process.wait(WAIT_S)
    wait_for(lambda: is_over(children))
    done = len(parts(output))
    assert done < COUNT // PART_ROWS
    assert not (output / "_SUCCESS").exists()
    remnant = output / f".{parts(output)[0]}.0123456789abcdef"  # as a killed writer leaves it
    remnant.write_bytes(b"half")
    finished = subprocess.run(
        command(source, output, server.grpc_url, *OPTIONS), capture_output=True, text=True, timeout=WAIT_S, check=False
    )
    assert finished.returncode == 0, finished.stderr
    assert f"{done * PART_ROWS:,} rows already" in finished.stderr
    check_exactly_once(read_output(output), rows, scores)
    assert not remnant.exists()
    scored = count_documents(client, server) - before
    print(f"{scored} pairs scored for {COUNT} rows; {done} parts were there after the kill")
    assert scored - COUNT <= 4 * PART_ROWS  # what was under way
    assert not list(Path("/tmp").glob(f"lychee-bulk-{process.pid}-*"))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_run_ends_cleanly(
    server: TritonServer, source: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    output = tmp_path / "scores"
    with started(command(source, output, server.grpc_url, *OPTIONS)) as process:
        wait_for(lambda: parts(output))
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(number)
        said, _ = process.communicate(timeout=WAIT_S)
    assert process.returncode == code
    assert "Traceback" not in said
    wait_for(lambda: is_over(children))
    assert not list(Path("/tmp").glob(f"lychee-bulk-{process.pid}-*"))
    assert not [name for name in os.listdir("/dev/shm") if str(process.pid) in name]
    assert not (output / "_SUCCESS").exists()


def test_a_run_waits_for_a_server_that_is_started_again(
    repository: Path, source: Path, rows: Rows, scores: list[float], tmp_path: Path
) -> None:
    output = tmp_path / "scores"
    ports = {"http_port": 0, "grpc_port": 0, "metrics_port": 0}
    with TritonServer(repository, config_name="cpu", **ports, log_path=tmp_path / "triton.log") as server:
        ports = {"http_port": server.http_port, "grpc_port": server.grpc_port, "metrics_port": server.metrics_port}
        words = command(source, output, server.grpc_url, *OPTIONS)
        process = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment()
        )
        wait_for(lambda: len(parts(output)) >= 2)
    assert process.poll() is None
    try:
        with TritonServer(repository, config_name="cpu", **ports, log_path=tmp_path / "again.log", key=server.key):
            said, _ = process.communicate(timeout=2 * WAIT_S)
    finally:
        process.kill()
    assert process.returncode == 0, said
    check_exactly_once(read_output(output), rows, scores)

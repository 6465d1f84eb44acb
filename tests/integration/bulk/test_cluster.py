"""A Ray cluster of two nodes on this machine, one of which is lost."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from lychee_client import LycheeClient
from lychee_server import TritonServer

from .bulk_runs import (
    WAIT_S,
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
from .conftest import StartCluster

pytestmark = [pytest.mark.triton, pytest.mark.slow]
COUNT = 480


def test_every_row_is_there_once_though_a_node_is_lost(
    start_cluster: StartCluster, server: TritonServer, client: LycheeClient, tmp_path: Path
) -> None:
    cluster, rows = start_cluster(2), make_rows(COUNT, seed=2)
    source, output = write_jsonl(tmp_path / "pairs.jsonl", rows), tmp_path / "scores"
    options = ("--address", cluster.address, "--part-rows", "32", "--keep-columns", "n")
    process = subprocess.Popen(
        command(source, output, server.grpc_url, *options),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(),
    )
    try:
        wait_for(lambda: len(parts(output)) >= 3 or process.poll() is not None)
        cluster.lose_node()
        assert len(parts(output)) < COUNT // 32
        said, _ = process.communicate(timeout=WAIT_S)
    finally:
        process.kill()
    assert process.returncode == 0, said
    assert "all 2 nodes share" in said
    check_exactly_once(read_output(output), rows, score_one_by_one(client, rows))

"""The command of the chart's RayJob, run by a shell, on Ray nodes that start with the chart's parameters."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from chart import one, render
from lychee_server import TritonServer
from lychee_server.processes import pick_free_ports

pytestmark = [pytest.mark.slow, pytest.mark.triton]

HOST = "127.0.0.1"
BIN = Path(sys.executable).parent
TIMEOUT_S = 180
OPTIONS = ["--instruction", "what's cheap: $5", "--keep-columns", "sku,the price"]
VALUES = {"enabled": True, "input": "/data/pairs.jsonl", "output": "/data/it's scored", "claim": "data"}


@contextlib.contextmanager
def ray_nodes(cluster: dict[str, Any]) -> Iterator[dict[str, str]]:
    """Start Ray's nodes as KubeRay does, without dashboard; yield the environment of a process on its head."""
    (port,) = pick_free_ports(HOST, 1)
    folder = tempfile.mkdtemp(prefix="lychee-ray-", dir="/tmp")  # paths of sockets are short
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    environment |= {"PATH": f"{BIN}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    places = [["--head", f"--port={port}", "--include-dashboard=false", f"--temp-dir={folder}"]]
    places.append([f"--address={HOST}:{port}"])
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    nodes: list[subprocess.Popen[bytes]] = []
    try:
        for place, group in zip(places, groups, strict=True):
            given = group["rayStartParams"].items()
            words = [f"--{name}={value}" for name, value in given if name != "dashboard-host"]
            command = [BIN / "ray", "start", *place, *words, f"--node-ip-address={HOST}", "--block"]
            nodes.append(subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, start_new_session=True))
        yield environment | {"RAY_ADDRESS": f"{HOST}:{port}"}
    finally:
        for node in reversed(nodes):
            node.send_signal(signal.SIGTERM)
            node.wait(TIMEOUT_S)
        shutil.rmtree(folder, ignore_errors=True)


def test_the_command_of_the_run_scores_on_its_cluster(server: TritonServer, tmp_path: Path) -> None:
    bulk = {**VALUES, "url": server.grpc_url, "args": OPTIONS, "objectStoreMb": 80, "workers": {"replicas": 1}}
    spec = one(render({"bulk": bulk}), "RayJob")["spec"]
    (tmp_path / "pairs.jsonl").write_text(
        '{"query": "a cat", "document": "a kitten", "sku": "a", "the price": 5}\n'
        '{"query": "a cat", "document": "a rocket", "sku": "b", "the price": 7}\n'
    )
    with ray_nodes(spec["rayClusterSpec"]) as environment:
        command = spec["entrypoint"].replace("/data/", f"{tmp_path}/")
        ran = subprocess.run(["sh", "-c", command], env=environment, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert ran.returncode == 0, ran.stderr[-3000:]
    folder = tmp_path / "it's scored"
    assert (folder / "_SUCCESS").exists()
    assert OPTIONS[1] in (folder / "_manifest.json").read_text(encoding="utf-8")
    (part,) = folder.glob("*.parquet")
    rows = pq.read_table(part).to_pylist()
    assert [(row["sku"], row["the price"]) for row in rows] == [("a", "5"), ("b", "7")]  # of JSON lines as text
    assert rows[0]["relevance_score"] > rows[1]["relevance_score"]

"""Measure the bundled model's speed and memory against their targets; print a table, write JSON.

Starts a server of its own on free ports. A number says nothing without its machine, so both are written together.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from lychee_client import Image, LycheeClient
from tritonclient.grpc import InferenceServerClient, InferInput

from lychee_loadtest.execution import open_session, read_executions
from lychee_loadtest.folders import REPOSITORY, RESULTS, write_record
from lychee_loadtest.machine import describe_machine
from lychee_loadtest.payloads import fresh_photos, fresh_queries, fresh_texts
from lychee_loadtest.speed.client_bench import measure_client
from lychee_loadtest.speed.measurement import Measurement

WARM_UP_CALLS = 10
CALLS = 60
LIST_CALLS = 20
LIST_LENGTH = 20
ROUNDS = 5
BATCHES_PER_ROUND = 12
BATCHES_IN_FLIGHT = 3


class Server:
    """A server of the command ``lychee``, with a state folder of its own."""

    def __init__(self, state_dir: str) -> None:
        self._environment = os.environ | {"LYCHEE_STATE_DIR": state_dir}

    def load(self) -> float:
        """Start it; return the seconds until ``lychee load`` came back."""
        started = time.perf_counter()
        ports = [f"--{name}-port=0" for name in ("http", "grpc", "metrics")]
        self._run("load", "--repository", str(REPOSITORY), *ports)
        return time.perf_counter() - started

    def status(self) -> dict[str, Any]:
        """Return what ``lychee status --json`` says."""
        status: dict[str, Any] = json.loads(self._run("status", "--json"))
        return status

    def stop(self) -> None:
        """Stop it."""
        self._run("stop")

    def _run(self, *arguments: str) -> str:
        command = [str(Path(sys.executable).parent / "lychee"), *arguments]
        return subprocess.run(command, env=self._environment, check=True, stdout=subprocess.PIPE, text=True).stdout


def measure_calls(plain: LycheeClient, caching: LycheeClient) -> Iterator[Measurement]:
    """Measure whole calls of the SDK: preprocessing, gRPC, queue, inference, ranking.

    Args:
        plain: A client without a cache, for what is new.
        caching: A client with one, for what is known.
    """
    queries, texts, photos = fresh_queries(), fresh_texts(), fresh_photos()

    def take_texts(count: int) -> list[str]:
        return list(itertools.islice(texts, count))

    def take_photos(count: int) -> list[Image]:
        return [Image.from_bytes(data) for data in itertools.islice(photos, count)]

    def measure(
        name: str,
        make: Callable[[], tuple[str, list[Any]]],
        calls: int,
        target: float | None,
        client: LycheeClient = plain,
    ) -> Measurement:
        latencies_ms = []
        for call in range(WARM_UP_CALLS + calls):
            query, documents = make()
            started = time.perf_counter()
            response = client.rerank(query, documents)
            if call >= WARM_UP_CALLS:
                latencies_ms.append(1e3 * (time.perf_counter() - started))
            if len(response.results) != len(documents):
                raise RuntimeError(f"{name}: {len(response.errors)} documents failed: {response.errors[0].message}")
        return Measurement(name, statistics.median(latencies_ms), "ms", target)

    cached = take_photos(LIST_LENGTH)
    yield measure("1 short text, all new", lambda: (next(queries), take_texts(1)), CALLS, 10)
    yield measure("1 short text, query repeated", lambda: ("a cat", take_texts(1)), CALLS, None)
    yield measure("1 photo, all new", lambda: (next(queries), take_photos(1)), CALLS, 13)
    yield measure("1 photo, query repeated", lambda: ("a cat", take_photos(1)), CALLS, None)
    yield measure("20 short texts, all new", lambda: (next(queries), take_texts(LIST_LENGTH)), LIST_CALLS, 120)
    yield measure("20 photos, all new", lambda: (next(queries), take_photos(LIST_LENGTH)), LIST_CALLS, 130)
    yield measure("20 photos, cached", lambda: ("a cat", cached), LIST_CALLS, 30, caching)
    yield measure("20 photos, cached, query new", lambda: (next(queries), cached), LIST_CALLS, None, caching)


def measure_throughput(url: str, executions: Mapping[str, str]) -> Iterator[Measurement]:
    """Compare batches through Triton with the same batches in in-process sessions that are executed alike, in turn."""
    rng = np.random.default_rng(0)

    def new_images() -> dict[str, Any]:
        return {"pixel_values": rng.integers(0, 256, (16, 3, 224, 224), dtype=np.uint8)}

    def new_texts() -> dict[str, Any]:
        ids = rng.integers(4, 42000, (32, 16))
        return {"input_ids": ids, "attention_mask": np.ones_like(ids)}

    for model, make in (("vision_encoder", new_images), ("text_encoder", new_texts)):
        (path,) = (REPOSITORY / model).glob("*/model.onnx")
        session = open_session(path, executions[model])
        ratios = []
        with InferenceServerClient(url) as triton, ThreadPoolExecutor(BATCHES_IN_FLIGHT) as pool:
            for _ in range(ROUNDS):
                batches = [make() for _ in range(BATCHES_PER_ROUND)]
                started = time.perf_counter()
                for batch in batches:
                    session.run(None, batch)
                in_process_s = time.perf_counter() - started
                started = time.perf_counter()
                list(pool.map(partial(infer, triton, model), batches))
                ratios.append(in_process_s / (time.perf_counter() - started))
        yield Measurement(f"{model} throughput, Triton / in process", statistics.median(ratios), "", 0.85, True)


def infer(triton: InferenceServerClient, model: str, batch: dict[str, Any]) -> None:
    """Send one batch to one model."""
    inputs = []
    for name, array in batch.items():
        tensor = InferInput(name, array.shape, "UINT8" if array.dtype == np.uint8 else "INT64")
        tensor.set_data_from_numpy(array)
        inputs.append(tensor)
    triton.infer(model, inputs)


def run() -> list[Measurement]:
    """Start a server, measure everything, stop the server."""
    measurements: list[Measurement] = []
    with tempfile.TemporaryDirectory() as state_dir:
        server = Server(state_dir)
        server.load()
        server.stop()
        load_s = server.load()
        try:
            status = server.status()
            url = status["grpc_url"]
            with LycheeClient(url, embedding_cache=None) as client, LycheeClient(url) as caching:
                measurements += measure_calls(client, caching)
            measurements += measure_client(url, status["http_url"])
            measurements += measure_throughput(url, read_executions(url))
            measurements.append(Measurement("lychee load, second time", load_s, "s", 12))
            status = server.status()
        finally:
            server.stop()
    measurements.append(Measurement("resident memory, server and stubs", status["rss_bytes"] / 1e9, "GB", 1.2))
    measurements.append(Measurement("the same, shared pages counted once", status["pss_bytes"] / 1e9, "GB"))
    return measurements


def main() -> None:
    """Print the table and write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=RESULTS / "bench.json")
    output: Path = parser.parse_args().output
    machine = describe_machine()
    bfloat16 = "bfloat16" if machine["bfloat16"] else "no bfloat16"
    print(f"{machine['cpu']}, {machine['cores']} cores, {bfloat16}, {machine['date']}; medians")
    measurements = run()
    for line in measurements:
        print(line)
    content = {"machine": machine, "measurements": [asdict(line) | {"met": line.met} for line in measurements]}
    write_record(output, content)
    print(f"written to {output.relative_to(Path.cwd()) if output.is_relative_to(Path.cwd()) else output}")


if __name__ == "__main__":
    main()

"""Measure a call with 1,000 cached documents of a model with late interaction; print a table, write JSON.

Starts a server of its own on free ports, with the plain CPU provider. All documents are encoded by the first call; then
queries come one after the other, by a client that sends vectors in its requests and one that shares memory, in turns.
Further lines say where the time goes: the head in this process on the same vectors, and what the client does alone.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
import psutil
from lychee_client import LycheeClient
from lychee_client.memory_cache import MemoryEmbeddingCache
from lychee_client.repository import MODEL_FILENAME, newest_version
from lychee_client.triton_key import KEY_VARIABLE
from lychee_server import TritonServer

from lychee_loadtest.folders import RESULTS, write_record
from lychee_loadtest.machine import describe_machine
from lychee_loadtest.payloads import fresh_queries
from lychee_loadtest.speed.measurement import Measurement

TARGET_MS = 50.0
CACHE_BYTES = 2**29
VECTORS = 100
DOCUMENTS_PER_RUN = 128
_WORDS = ("the", "cat", "sleeps", "on", "a", "sofa", "cup", "of", "coffee", "hot", "drink", "yellow", "flower")


def make_documents(count: int, words: tuple[int, int]) -> list[str]:
    """Return so many different texts, each of a number of words between the two."""
    rng = random.Random(0)
    return [f"{index} {' '.join(rng.choices(_WORDS, k=rng.randint(*words)))}" for index in range(count)]


def time_ms(run: Callable[[], object]) -> float:
    """Return how long it takes."""
    started = time.perf_counter()
    run()
    return 1e3 * (time.perf_counter() - started)


def count_children_s() -> float:
    """Return the CPU time that the processes of the server have taken, in seconds."""
    return sum(sum(child.cpu_times()[:2]) for child in psutil.Process().children(recursive=True))


def measure_calls(server: TritonServer, documents: Sequence[str], rounds: int) -> Iterator[Measurement]:
    """Time calls whose documents are all cached, sent and shared in turns.

    CPU time is less moved than wall time by what else the machine does.
    """
    queries = fresh_queries()
    latencies: dict[str, list[float]] = {"shared memory": [], "sent": []}
    own, served = dict.fromkeys(latencies, 0.0), dict.fromkeys(latencies, 0.0)
    with (
        LycheeClient(server.grpc_url, embedding_cache=MemoryEmbeddingCache(CACHE_BYTES), shared_memory=True) as sharing,
        LycheeClient(server.grpc_url, embedding_cache=MemoryEmbeddingCache(CACHE_BYTES)) as sending,
    ):
        clients = {"shared memory": sharing, "sent": sending}
        for client in clients.values():
            first = client.rerank("warm up", documents, timeout_s=None)
        tokens = [result.tokens or 0 for result in first.results]
        yield Measurement("tokens of a document, mean", statistics.mean(tokens), "")
        for number in range(rounds):
            for name in list(latencies)[:: 1 if number % 2 else -1]:
                query, client = next(queries), clients[name]
                before = time.process_time(), count_children_s()
                latencies[name].append(time_ms(lambda: client.rerank(query, documents)))  # noqa: B023
                own[name] += 1e3 * (time.process_time() - before[0]) / rounds
                served[name] += 1e3 * (count_children_s() - before[1]) / rounds
    for name, values in latencies.items():
        yield Measurement(
            f"{len(documents)} cached documents, {name}, median", statistics.median(values), "ms", TARGET_MS
        )
        yield Measurement(f"{len(documents)} cached documents, {name}, least", min(values), "ms")
        yield Measurement("CPU time of the client", own[name], "ms")
        yield Measurement("CPU time of the server", served[name], "ms")


def measure_head(repository: Path, count: int, rounds: int) -> Iterator[Measurement]:
    """Time the scoring head in this process, in requests as a client makes them, on random vectors."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # as it is served
    path = newest_version(repository / "scoring_head") / MODEL_FILENAME
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    query_spec, _ = session.get_inputs()
    _, _, tokens, dim = query_spec.shape
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> npt.NDArray[np.float16]:
        vectors = rng.standard_normal((*shape, dim))
        unit: npt.NDArray[np.float16] = (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float16)
        return unit

    query, documents = draw(1, 1, tokens), draw(1, DOCUMENTS_PER_RUN, VECTORS)

    def run() -> None:
        for _ in range(-(-count // DOCUMENTS_PER_RUN)):
            session.run(None, {"query_embeddings": query, "document_embeddings": documents})

    times = [time_ms(run) for _ in range(rounds)]
    yield Measurement(f"head alone, {count} x {VECTORS} vectors of {dim}, median", statistics.median(times), "ms")
    yield Measurement(f"head alone, {count} x {VECTORS} vectors of {dim}, least", min(times), "ms")


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repository", type=Path, required=True, help="an export of a model with late interaction")
    parser.add_argument("--documents", type=int, default=1000)
    parser.add_argument("--words", type=int, nargs=2, default=(55, 112), metavar=("LEAST", "MOST"))
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--output", type=Path, default=RESULTS / "late_interaction.json")
    arguments = parser.parse_args()
    documents = make_documents(arguments.documents, tuple(arguments.words))
    measurements = []
    with tempfile.TemporaryDirectory() as folder:
        log_path = Path(folder) / "triton.log"
        with TritonServer(
            arguments.repository, config_name="cpu", http_port=0, grpc_port=0, metrics_port=0, log_path=log_path
        ) as server:
            os.environ[KEY_VARIABLE] = server.key
            for measurement in measure_calls(server, documents, arguments.rounds):
                print(measurement, flush=True)
                measurements.append(measurement)
    for measurement in measure_head(arguments.repository, arguments.documents, arguments.rounds):
        print(measurement, flush=True)
        measurements.append(measurement)
    write_record(arguments.output, {**describe_machine(), "measurements": [asdict(each) for each in measurements]})


if __name__ == "__main__":
    main()

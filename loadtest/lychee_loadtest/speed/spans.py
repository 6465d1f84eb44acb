"""Measure what relevant spans cost: 100 texts of ten sentences, the ten best searched; print a table, write JSON.

Starts a server of its own on free ports. Each new list of texts is ranked without and with spans, in turns that change
places, by clients without a cache. The third line is what the spans' sentences cost as the documents of a call.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

from lychee_client import LycheeClient, RelevantSpans
from lychee_client.sentences import find_sentences
from lychee_server import TritonServer

from lychee_loadtest.folders import REPOSITORY, RESULTS, write_record
from lychee_loadtest.machine import describe_machine
from lychee_loadtest.payloads import fresh_queries, fresh_texts
from lychee_loadtest.speed.measurement import Measurement

TEXTS = 100
SENTENCES = 10
TOP_N = 10
WARM_UP_CALLS = 3


def measure_spans(url: str, calls: int) -> Iterator[Measurement]:
    """Compare the same calls without and with spans, in turns.

    Args:
        url: The address of the gRPC port, "HOST:PORT".
        calls: How many lists of texts are ranked.
    """
    queries, words = fresh_queries(), fresh_texts()
    latencies: dict[str, list[float]] = {"plain": [], "spans": [], "sentences": []}
    splitting: list[float] = []
    with LycheeClient(url, embedding_cache=None, timeout_s=300) as client:
        for call in range(WARM_UP_CALLS + calls):
            query = next(queries)
            texts = [" ".join(f"{next(words)}." for _ in range(SENTENCES)) for _ in range(TEXTS)]
            sentences = list(itertools.islice(words, TOP_N * SENTENCES))
            kinds: list[tuple[str, Callable[[], object]]] = [
                ("plain", lambda: client.rerank(query, texts, top_n=TOP_N)),  # noqa: B023
                ("spans", lambda: client.rerank(query, texts, top_n=TOP_N, relevant_spans=RelevantSpans())),  # noqa: B023
                ("sentences", lambda: client.rerank(query, sentences)),  # noqa: B023
            ]
            for name, run in kinds[:: 1 if call % 2 else -1]:
                elapsed_ms = time_ms(run)
                if call >= WARM_UP_CALLS:
                    latencies[name].append(elapsed_ms)
            splitting.append(time_ms(lambda: [list(find_sentences(text)) for text in texts[:TOP_N]]))  # noqa: B023
    added = [spans - plain for spans, plain in zip(latencies["spans"], latencies["plain"], strict=True)]
    ratios = [spans / plain for spans, plain in zip(latencies["spans"], latencies["plain"], strict=True)]
    yield Measurement(f"{TEXTS} texts, top {TOP_N}", statistics.median(latencies["plain"]), "ms")
    yield Measurement("the same with relevant spans", statistics.median(latencies["spans"]), "ms")
    yield Measurement(f"{TOP_N * SENTENCES} sentences as documents", statistics.median(latencies["sentences"]), "ms")
    yield Measurement("spans add, of the same texts", statistics.median(added), "ms")
    yield Measurement("with / without, of the same texts", statistics.median(ratios), "")
    yield Measurement(f"finding the sentences of {TOP_N} texts", statistics.median(splitting), "ms")


def time_ms(run: Callable[[], object]) -> float:
    """Return how long a function takes, in milliseconds."""
    started = time.perf_counter()
    run()
    return 1e3 * (time.perf_counter() - started)


def main() -> None:
    """Print the table and write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=30, help="lists of texts")
    parser.add_argument("--output", type=Path, default=RESULTS / "spans.json")
    arguments = parser.parse_args()
    machine = describe_machine()
    print(f"{machine['cpu']}, {machine['cores']} cores, {machine['date']}; medians of {arguments.calls} calls")
    with (
        tempfile.TemporaryDirectory() as folder,
        TritonServer(
            REPOSITORY, http_port=0, grpc_port=0, metrics_port=0, log_path=Path(folder) / "triton.log"
        ) as server,
    ):
        lines = list(measure_spans(server.grpc_url, arguments.calls))
    for line in lines:
        print(line)
    write_record(arguments.output, {"machine": machine, "measurements": [asdict(line) for line in lines]})


if __name__ == "__main__":
    main()

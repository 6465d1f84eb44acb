"""What long documents cost: calls of the SDK that read beginnings, and calls that read chunks, as a table.

Starts Triton on free ports. Every text is new, and the client keeps nothing, so that every chunk is computed.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from lychee_client import Chunking, LycheeClient, RerankOptions
from lychee_server import TritonServer

from lychee_loadtest.folders import REPOSITORY
from lychee_loadtest.machine import describe_machine
from lychee_loadtest.payloads import fresh_queries, fresh_texts

__all__ = ["main"]

CHUNKS = (1, 2, 4, 8, 16)
DOCUMENTS = 10
CALLS = 5
SENTENCES = 1200  # of about 11 tokens: some 25 chunks of 512 tokens
WARM_UP_CALLS = 1


def make_documents(texts: Iterator[str], count: int) -> list[str]:
    """Return documents that are longer than any of the chunks that are asked for."""
    return [". ".join(itertools.islice(texts, SENTENCES)) for _ in range(count)]


def measure(client: LycheeClient, options: RerankOptions, texts: Iterator[str], documents: int, calls: int) -> float:
    """Return the median time of a call in milliseconds."""
    times_ms = []
    for query in itertools.islice(fresh_queries(), WARM_UP_CALLS + calls):
        made = make_documents(texts, documents)
        started = time.perf_counter()
        response = client.rerank(query, made, **options)
        times_ms.append(1e3 * (time.perf_counter() - started))
        assert len(response.results) == len(made)
    return statistics.median(times_ms[WARM_UP_CALLS:])


def main() -> None:
    """Print the table in Markdown."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repository", type=Path, default=REPOSITORY)
    parser.add_argument("--chunks", type=int, nargs="+", default=CHUNKS, help="of a document, at most")
    parser.add_argument("--documents", type=int, default=DOCUMENTS, help="of a call")
    parser.add_argument("--calls", type=int, default=CALLS, help="of each line, after one to warm up")
    arguments = parser.parse_args()
    machine = describe_machine()
    texts = fresh_texts()
    with (
        tempfile.TemporaryDirectory() as folder,
        TritonServer(
            arguments.repository, http_port=0, grpc_port=0, metrics_port=0, log_path=Path(folder) / "triton.log"
        ) as server,
        LycheeClient(server.grpc_url, embedding_cache=None) as client,
    ):
        beginnings_ms = measure(client, {"timeout_s": None}, texts, arguments.documents, arguments.calls)
        print(
            f"{machine['cpu']}, {machine['cores']} cores, {machine['date']}; {arguments.documents} documents a call, "
            f"median of {arguments.calls} calls\n"
        )
        print("| chunks of a document | milliseconds | times the beginnings | times, per chunk |")
        print("|---|---|---|---|")
        print(f"| none: its beginning | {beginnings_ms:.0f} | 1 | |", flush=True)
        for most in arguments.chunks:
            options: RerankOptions = {"timeout_s": None, "chunking": Chunking(max_chunks_per_doc=most)}
            taken_ms = measure(client, options, texts, arguments.documents, arguments.calls)
            ratio = taken_ms / beginnings_ms
            print(f"| {most} | {taken_ms:.0f} | {ratio:.2f} | {ratio / most:.2f} |", flush=True)


if __name__ == "__main__":
    main()

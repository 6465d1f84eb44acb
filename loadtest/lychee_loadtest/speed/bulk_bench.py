"""What `lychee bulk` reaches of an in-process session on the same pairs of short texts, in turn; as a table.

Starts Triton on free ports, and `lychee bulk` as a process, with a Ray of its own each time. The server's own count
of pairs says how many it scores per second while it scores: Ray's start and end are no part of that.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from lychee_server import TritonServer
from tritonclient.grpc import InferenceServerClient

from lychee_loadtest.compare.documents import Call, Documents
from lychee_loadtest.compare.session import SessionCaller
from lychee_loadtest.execution import read_executions
from lychee_loadtest.folders import REPOSITORY
from lychee_loadtest.machine import describe_machine
from lychee_loadtest.speed.measurement import Measurement

__all__ = ["main"]

ROUNDS = 3
PAIRS = 6_000
SESSION_PAIRS = 2_000
DOCUMENTS = 20
WARM_UP_CALLS = 5
DECODING_THREADS = 2
POLL_S = 0.25
EDGES = (0.1, 0.9)
"""Between which shares of its pairs a run counts as steady."""
PLANNED_PAIRS = 1_000_000
PLANNED_NODES = (1, 2, 4, 8)
LANES = {"bulk": None, "interactive": 0.9}
"""The target of each lane. Who has a server alone needs no small requests that others can overtake."""


@dataclass(frozen=True)
class BulkRun:
    """One run.

    Attributes:
        steady: Pairs per second while it scored.
        total: Pairs per second of the whole command.
        around_s: Seconds of the command beyond those that its pairs take at the steady speed.
    """

    steady: float
    total: float
    around_s: float


def make_calls(pairs: int, *seed: int) -> list[Call]:
    """Return queries with texts, so many pairs in all, that no other seed gives."""
    documents = Documents(*seed)
    return [documents.call("texts", DOCUMENTS) for _ in range(pairs // DOCUMENTS)]


def measure_session(session: SessionCaller, calls: list[Call]) -> float:
    """Return the pairs per second of a session."""
    started = time.perf_counter()
    for call in calls:
        session.rank(call)
    return sum(len(call.documents) for call in calls) / (time.perf_counter() - started)


def measure_bulk(url: str, calls: list[Call], folder: Path, options: list[str]) -> BulkRun:
    """Run the command on a file with the pairs of the calls.

    Raises:
        RuntimeError: It failed, or did not score every pair.
    """
    folder.mkdir()
    with (folder / "pairs.jsonl").open("w", encoding="utf-8") as file:
        for call in calls:
            file.writelines(json.dumps({"query": call.query, "document": text}) + "\n" for text in call.documents)
    lychee = Path(sys.executable).parent / "lychee"
    command = [
        str(lychee),
        "bulk",
        str(folder / "pairs.jsonl"),
        str(folder / "scores"),
        "--url",
        url,
        "--json",
        *options,
    ]
    counts: list[tuple[float, int]] = []
    started = time.perf_counter()
    with InferenceServerClient(url) as triton:
        before = count_pairs(triton)
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        while process.poll() is None:
            counts.append((time.perf_counter(), count_pairs(triton) - before))
            time.sleep(POLL_S)
        taken_s = time.perf_counter() - started
    said, complaint = process.communicate()
    pairs = sum(len(call.documents) for call in calls)
    if process.returncode or json.loads(said)["scored"] != pairs:
        raise RuntimeError(f"lychee bulk ended with {process.returncode}: {said}{complaint}")
    steady = [point for point in counts if EDGES[0] * pairs <= point[1] <= EDGES[1] * pairs]
    rate = (steady[-1][1] - steady[0][1]) / (steady[-1][0] - steady[0][0])
    return BulkRun(rate, pairs / taken_s, taken_s - pairs / rate)


def count_pairs(triton: InferenceServerClient) -> int:
    """Return how many pairs of texts a server has scored."""
    statistics_of_model = triton.get_inference_statistics("scoring_head_text").model_stats
    return int(sum(model.inference_count for model in statistics_of_model))


def main() -> None:
    """Print every round, the table, and a plan."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repository", type=Path, default=REPOSITORY)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--pairs", type=int, default=PAIRS, help="of a run of lychee bulk")
    parser.add_argument("--session-pairs", type=int, default=SESSION_PAIRS, help="of a round of the session")
    parser.add_argument("options", nargs="*", metavar="OPTION", help="of lychee bulk, after --")
    arguments = parser.parse_args()
    machine = describe_machine()
    sessions: list[float] = []
    runs: dict[str, list[BulkRun]] = {lane: [] for lane in LANES}
    with (
        tempfile.TemporaryDirectory() as folder,
        TritonServer(
            arguments.repository, http_port=0, grpc_port=0, metrics_port=0, log_path=Path(folder) / "triton.log"
        ) as server,
    ):
        url, executions = server.grpc_url, read_executions(server.grpc_url)
        print(
            f"{machine['cpu']}, {machine['cores']} cores, {machine['date']}; {executions['text_encoder']}", flush=True
        )
        session = SessionCaller(arguments.repository, DECODING_THREADS, executions)
        measure_session(session, make_calls(WARM_UP_CALLS * DOCUMENTS, 0))
        for number in range(1, arguments.rounds + 1):
            sessions.append(measure_session(session, make_calls(arguments.session_pairs, number, 0)))
            print(f"round {number}: session {sessions[-1]:.1f} pairs/s", flush=True)
            for place, lane in enumerate(LANES, 1):
                calls = make_calls(arguments.pairs, number, place)
                options = ["--priority", lane, *arguments.options]
                run = measure_bulk(url, calls, Path(folder, f"{number}-{lane}"), options)
                runs[lane].append(run)
                print(f"round {number}: {lane} {run.steady:.1f} pairs/s, {run.total:.1f} in all", flush=True)
    print(Measurement("session", statistics.median(sessions), "1/s"))
    for lane, target in LANES.items():
        ratios = [run.steady / alone for run, alone in zip(runs[lane], sessions, strict=True)]
        steady = statistics.median(run.steady for run in runs[lane])
        around_s = statistics.median(run.around_s for run in runs[lane])
        print(Measurement(f"--priority {lane}, while it scores", steady, "1/s"))
        print(Measurement(f"--priority {lane}, before and after that", around_s, "s"))
        print(Measurement(f"--priority {lane}, while it scores / session", statistics.median(ratios), "", target, True))
        for nodes in PLANNED_NODES:
            hours = (PLANNED_PAIRS / (nodes * steady) + around_s) / 3600
            print(f"    {PLANNED_PAIRS:,} such pairs on {nodes} such nodes, on paper: {hours:.2f} hours")


if __name__ == "__main__":
    main()

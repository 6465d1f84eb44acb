"""What `lychee bulk` reaches of an in-process session on the same pairs of short texts, in turn; as a table.

Starts Triton on free ports, and `lychee bulk` as a process, with a Ray of its own each time. The server's own count
of pairs says how many it scores per second while it scores: Ray's start and end are no part of that. On a machine that
others use too, pairs per CPU second say more than pairs per second.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
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
        cpu_ms: Milliseconds of CPU time for a pair meanwhile, of Triton, Ray and the command together.
        total: Pairs per second of the whole command.
        around_s: Seconds of the command beyond those that its pairs take at the steady speed.
    """

    steady: float
    cpu_ms: float
    total: float
    around_s: float


def make_calls(pairs: int, *seed: int) -> list[Call]:
    """Return queries with texts, so many pairs in all, that no other seed gives."""
    documents = Documents(*seed)
    return [documents.call("texts", DOCUMENTS) for _ in range(pairs // DOCUMENTS)]


def measure_session(session: SessionCaller, calls: list[Call]) -> tuple[float, float]:
    """Return the pairs per second of a session, and its milliseconds of CPU time for a pair."""
    started, used_s = time.perf_counter(), time.process_time()
    for call in calls:
        session.rank(call)
    pairs = sum(len(call.documents) for call in calls)
    return pairs / (time.perf_counter() - started), 1e3 * (time.process_time() - used_s) / pairs


def measure_bulk(server: TritonServer, calls: list[Call], folder: Path, options: list[str]) -> BulkRun:
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
        server.grpc_url,
        "--json",
        *options,
    ]
    samples: list[tuple[float, int, float]] = []
    started = time.perf_counter()
    with InferenceServerClient(server.grpc_url) as triton:
        before = count_pairs(triton)
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        used = CpuTime(process.pid, server.pid or 0)
        while process.poll() is None:
            samples.append((time.perf_counter(), count_pairs(triton) - before, used.read()))
            time.sleep(POLL_S)
        taken_s = time.perf_counter() - started
    said, complaint = process.communicate()
    pairs = sum(len(call.documents) for call in calls)
    if process.returncode or json.loads(said)["scored"] != pairs:
        raise RuntimeError(f"lychee bulk ended with {process.returncode}: {said}{complaint}")
    steady = [sample for sample in samples if EDGES[0] * pairs <= sample[1] <= EDGES[1] * pairs]
    (began, first, before_s), (ended, last, after_s) = steady[0], steady[-1]
    rate = (last - first) / (ended - began)
    return BulkRun(rate, 1e3 * (after_s - before_s) / (last - first), pairs / taken_s, taken_s - pairs / rate)


class CpuTime:
    """The CPU time of processes and all that they start, also of those that have ended.

    Args:
        pids: The processes.
    """

    def __init__(self, *pids: int) -> None:
        self._roots = [psutil.Process(pid) for pid in pids]
        self._used: dict[psutil.Process, float] = {}

    def read(self) -> float:
        """Return the seconds that they have used so far."""
        for root in self._roots:
            with contextlib.suppress(psutil.NoSuchProcess):
                for process in (root, *root.children(recursive=True)):
                    with contextlib.suppress(psutil.NoSuchProcess):
                        times = process.cpu_times()
                        self._used[process] = times.user + times.system
        return sum(self._used.values())


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
    sessions: list[tuple[float, float]] = []
    runs: dict[str, list[BulkRun]] = {lane: [] for lane in LANES}
    with (
        tempfile.TemporaryDirectory() as folder,
        TritonServer(
            arguments.repository, http_port=0, grpc_port=0, metrics_port=0, log_path=Path(folder) / "triton.log"
        ) as server,
    ):
        executions = read_executions(server.grpc_url)
        print(
            f"{machine['cpu']}, {machine['cores']} cores, {machine['date']}; {executions['text_encoder']}", flush=True
        )
        session = SessionCaller(arguments.repository, DECODING_THREADS, executions)
        measure_session(session, make_calls(WARM_UP_CALLS * DOCUMENTS, 0))
        for number in range(1, arguments.rounds + 1):
            rate, cpu_ms = measure_session(session, make_calls(arguments.session_pairs, number, 0))
            sessions.append((rate, cpu_ms))
            print(f"round {number}: session {rate:.1f} pairs/s, {cpu_ms:.2f} ms of CPU", flush=True)
            for place, lane in enumerate(LANES, 1):
                calls = make_calls(arguments.pairs, number, place)
                options = ["--priority", lane, *arguments.options]
                run = measure_bulk(server, calls, Path(folder, f"{number}-{lane}"), options)
                runs[lane].append(run)
                print(f"round {number}: {lane} {run.steady:.1f} pairs/s, {run.cpu_ms:.2f} ms of CPU", flush=True)
    print(Measurement("session", statistics.median(rate for rate, _ in sessions), "1/s"))
    print(Measurement("session, CPU time for a pair", statistics.median(cpu_ms for _, cpu_ms in sessions), "ms"))
    for lane, target in LANES.items():
        steady = statistics.median(run.steady for run in runs[lane])
        around_s = statistics.median(run.around_s for run in runs[lane])
        together = list(zip(runs[lane], sessions, strict=True))
        ratio = statistics.median(run.steady / rate for run, (rate, _) in together)
        cpu_ratio = statistics.median(cpu_ms / run.cpu_ms for run, (_, cpu_ms) in together)
        print(Measurement(f"{lane}, while it scores", steady, "1/s"))
        print(Measurement(f"{lane}, the whole command", statistics.median(run.total for run in runs[lane]), "1/s"))
        print(Measurement(f"{lane}, before and after scoring", around_s, "s"))
        print(Measurement(f"{lane}, CPU time for a pair", statistics.median(run.cpu_ms for run in runs[lane]), "ms"))
        print(Measurement(f"{lane}, while it scores / session", ratio, "", target, True))
        print(Measurement(f"{lane}, pairs per CPU second / session", cpu_ratio, ""))
        for nodes in PLANNED_NODES:
            hours = (PLANNED_PAIRS / (nodes * steady) + around_s) / 3600
            print(f"    {PLANNED_PAIRS:,} such pairs on {nodes} such nodes, on paper: {hours:.2f} hours")


if __name__ == "__main__":
    main()

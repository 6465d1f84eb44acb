"""What a cluster runs: replicas of Triton and of the gateway behind names that hold the ready ones, and callers."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from chaos.replicas.network import DOMAIN, Network

GRPC_PORT: Final = 8001
HTTP_PORT: Final = 8000
GATEWAY_PORT: Final = 7860
CLIENTS: Final = "clients"
READY_TIMEOUT_S: Final = 240.0  # generous: the machine may be busy with other tests
END_TIMEOUT_S: Final = 60.0
SLOW_PERIOD_S: Final = 0.2
SLOW_SHARE: Final = 0.9  # of the time a slow replica does nothing
# Asks for a page on the machine where it runs.
FETCH: Final = (
    "import sys, urllib.request; sys.stdout.write(urllib.request.urlopen(sys.argv[1], timeout=10).read().decode())"
)


def wait_for(condition: Callable[[], Any], what: str, timeout_s: float = READY_TIMEOUT_S) -> Any:
    """Return what the condition returns once that is true."""
    deadline_s = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline_s, f"{what}: not within {timeout_s:g} s"
        time.sleep(0.1)
    return found


class Replica:
    """A machine with one process on it, which nobody starts again.

    Attributes:
        name: The machine's.
        address: The machine's.
    """

    def __init__(self, network: Network, name: str) -> None:
        self.network = network
        self.name = name
        self.address = network.add(name)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        """What the process has printed."""
        return (self.network.folder / f"{self.name}.log").read_text(encoding="utf-8", errors="replace")

    def launch(self, command: Sequence[str | Path], ready_word: str) -> None:
        """Start the process and wait until it prints a word."""
        cache = self.network.folder / self.name
        environment = {"LYCHEE_CACHE_DIR": str(cache / "cache"), "LYCHEE_STATE_DIR": str(cache / "state")}
        process = self.network.start(self.name, command, environment)
        self._process = process

        def is_ready() -> bool:
            assert process.poll() is None, self.log
            return ready_word in self.log

        wait_for(is_ready, f"{self.name} prints {ready_word!r}")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to every process of the machine."""
        listed = subprocess.run(
            ["ip", "netns", "pids", self.network.namespace(self.name)], capture_output=True, text=True, check=True
        )
        for pid in map(int, listed.stdout.split()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def stop(self) -> None:
        """End the process as a cluster does: SIGTERM, and time to finish."""
        assert self._process is not None
        self._process.terminate()
        self._process.wait(END_TIMEOUT_S)

    def kill(self) -> None:
        """End all of it at once."""
        self.signal(signal.SIGKILL)
        assert self._process is not None
        self._process.wait(END_TIMEOUT_S)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop every process; the kernel still takes connections for them."""
        self.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.signal(signal.SIGCONT)

    @contextlib.contextmanager
    def slow(self) -> Iterator[None]:
        """Let the processes run for a tenth of the time only, as where others take a machine's cores."""
        ended = threading.Event()

        def hold_back() -> None:
            while not ended.is_set():
                self.signal(signal.SIGSTOP)
                time.sleep(SLOW_SHARE * SLOW_PERIOD_S)
                self.signal(signal.SIGCONT)
                time.sleep((1 - SLOW_SHARE) * SLOW_PERIOD_S)

        thread = threading.Thread(target=hold_back)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def fetch(self, url: str) -> str:
        """Return a page, asked for on this machine."""
        return self.network.run(self.name, sys.executable, "-ISc", FETCH, url)


class Triton(Replica):
    """A replica of Triton.

    Attributes:
        repository: What it serves; None while it does not run.
    """

    repository: Path | None = None

    def start(self, repository: Path) -> None:
        """Start it and wait until its models are ready."""
        log = self.network.folder / f"{self.name}.triton.log"
        self.launch([sys.executable, "-m", "chaos.replicas.triton_process", repository, self.address, log], "ready")
        self.repository = repository

    def stop(self) -> None:
        """See Replica."""
        self.repository = None
        super().stop()

    def kill(self) -> None:
        """See Replica."""
        self.repository = None
        super().kill()

    def count_requests(self) -> int:
        """Return how many requests the query's encoder has answered since the start."""
        page = self.fetch(f"http://{self.address}:8002/metrics")
        lines = [
            line for line in page.splitlines() if line.startswith('nv_inference_request_success{model="text_encoder"')
        ]
        return sum(int(float(line.split()[-1])) for line in lines)


class Gateway(Replica):
    """A replica of the gateway."""

    def start(self, triton_url: str) -> None:
        """Start it and wait until it is ready."""
        options = ["--triton-url", triton_url, "--host", self.address, "--port", str(GATEWAY_PORT), "--no-web"]
        self.launch([sys.executable, "-m", "lychee_server.gateway", *options], '"listening"')
        wait_for(self.is_ready, f"{self.name} is ready")

    def is_ready(self) -> bool:
        """Ask its readiness."""
        with contextlib.suppress(AssertionError):
            return bool(self.fetch(f"http://{self.address}:{GATEWAY_PORT}/health/ready"))
        return False


@dataclass(frozen=True)
class Call:
    """What came of a call; see `callers`."""

    began_s: float
    seconds: float
    caller: str
    outcome: str
    note: str


class Callers:
    """Callers on the clients' machine, from the start of a `with` block to its end.

    Args:
        network: Where the machine is.
        expected: The file with the right scores.
        pause_s: How long a caller waits between two calls, on average.
        callers: "KIND=URL" each.
    """

    def __init__(self, network: Network, expected: Path, pause_s: float, callers: Sequence[str]) -> None:
        self._network = network
        arguments = ["call", str(expected), str(pause_s), *callers]
        self._command = [sys.executable, "-m", "chaos.replicas.callers", *arguments]
        self._count = len(callers)

    def __enter__(self) -> Callers:
        environment = {"LYCHEE_CACHE_DIR": str(self._network.folder / "clients"), "OMP_NUM_THREADS": "1"}
        self._process = self._network.start(CLIENTS, self._command, environment)
        try:
            wait_for(lambda: len({call.caller for call in self.calls()}) == self._count, "a call of each caller")
        except BaseException:
            self.__exit__()
            report("before all called", self.calls())
            print(self._log()[-3000:])
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def calls(self, since_s: float = 0.0) -> list[Call]:
        """Return the calls that have ended and began after a moment of `time.monotonic`."""
        lines = [
            line for line in self._log().splitlines(keepends=True) if line.startswith("{") and line.endswith("}\n")
        ]
        return [call for call in (Call(**json.loads(line)) for line in lines) if call.began_s >= since_s]

    def _log(self) -> str:
        return (self._network.folder / f"{CLIENTS}.log").read_text(encoding="utf-8")

    def watch(self, seconds: float) -> list[Call]:
        """Return the calls of the next seconds, and wait for those that began in them."""
        began_s = time.monotonic()
        time.sleep(seconds)
        ended_s = time.monotonic()
        callers = {call.caller for call in self.calls()}
        wait_for(lambda: {call.caller for call in self.calls(ended_s)} == callers, "calls that began in time end", 60)
        return [call for call in self.calls(began_s) if call.began_s < ended_s]


def report(title: str, calls: Sequence[Call]) -> dict[str, float]:
    """Print and return what came of calls: how many, failed, mixed, and how long they took."""
    outcomes = Counter(call.outcome for call in calls)
    found = {"calls": len(calls), "failed": outcomes["failed"], "mixed": outcomes["mixed"]}
    found |= {"p50_ms": quantile_ms(calls, 50), "p99_ms": quantile_ms(calls, 99)}
    found["max_ms"] = round(1e3 * max((call.seconds for call in calls), default=0.0))
    print(f"{title}: {found} {dict(outcomes)}")
    for call in calls:
        if call.note:
            print(f"  {call.caller} {call.seconds:.2f} s {call.outcome}: {call.note[:300]}")
    return found


def quantile_ms(calls: Sequence[Call], percent: int) -> float:
    """Return a quantile of the calls' durations, in milliseconds."""
    durations = [call.seconds for call in calls]
    return round(1e3 * statistics.quantiles(durations, n=100)[percent - 1]) if len(durations) > 1 else 0.0


def url_of(name: str, port: int, scheme: str = "") -> str:
    """Return the URL of a name."""
    return f"{scheme}{name}.{DOMAIN}:{port}"

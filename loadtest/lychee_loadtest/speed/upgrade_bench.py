"""What callers notice of `lychee upgrade`: before it, while the new Triton loads, during the change, and after.

Loads the bundled model with `lychee load` on free ports and with a state folder of its own, has callers of the SDK over
gRPC and HTTP and of the gateway rank on and on, and upgrades to the same export.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lychee_client import LycheeClient, LycheeError

from lychee_loadtest.folders import REPOSITORY
from lychee_loadtest.machine import describe_machine
from lychee_loadtest.payloads import fresh_queries, fresh_texts
from lychee_loadtest.quantile import quantile

__all__ = ["main"]

LYCHEE = str(Path(sys.executable).parent / "lychee")
FREE_PORTS = ("--http-port", "0", "--grpc-port", "0", "--metrics-port", "0", "--port", "0")
KINDS = ("grpc_url", "http_url", "gateway")
DOCUMENTS = 4
PAUSE_S = 0.05
WARM_UP_S = 5.0
PHASES = {"preparing": "it loads", "new connections": "the change", "Done": "after"}
"""What the command says when a phase begins."""


@dataclass(frozen=True)
class Call:
    """One call: when it began, how long it took, in seconds, and whether it failed."""

    began_s: float
    took_s: float
    failed: bool


class Caller(threading.Thread):
    """Ranks new texts, one call after the other."""

    def __init__(self, url: str, over: threading.Event) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self._url, self._over = url, over

    def run(self) -> None:
        queries, texts = fresh_queries(), fresh_texts()
        with LycheeClient(self._url, embedding_cache=None) as client:
            while not self._over.wait(PAUSE_S):
                began_s = time.monotonic()
                try:
                    failed = bool(client.rerank(next(queries), [next(texts) for _ in range(DOCUMENTS)]).errors)
                except LycheeError:
                    failed = True
                self.calls.append(Call(began_s, time.monotonic() - began_s, failed))


@contextmanager
def loaded(folder: Path) -> Iterator[dict[str, Any]]:
    """Serve the bundled model; yield what `lychee status` says."""
    os.environ["LYCHEE_STATE_DIR"] = str(folder)
    try:
        subprocess.run([LYCHEE, "load", "--repository", str(REPOSITORY), *FREE_PORTS], check=True, stdout=sys.stderr)
        told = subprocess.run([LYCHEE, "status", "--json"], check=True, capture_output=True, text=True).stdout
        yield json.loads(told)
    finally:
        subprocess.run([LYCHEE, "stop"], check=True, stdout=sys.stderr)


def upgrade() -> Iterator[tuple[float, str]]:
    """Upgrade; yield when each phase begins."""
    command = [LYCHEE, "upgrade"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"}
    ) as asked:
        assert asked.stdout is not None
        for line in asked.stdout:
            for words, phase in PHASES.items():
                if line.strip().startswith(words):
                    yield time.monotonic(), phase
    if asked.returncode:
        raise SystemExit(asked.returncode)


def main() -> None:
    """Print a table; exit with 1 if a call failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0, help="before the upgrade, and after it")
    seconds = parser.parse_args().seconds
    with tempfile.TemporaryDirectory(prefix="lychee-upgrade-") as folder, loaded(Path(folder)) as told:
        over = threading.Event()
        urls = {**told, "http_url": f"http://{told['http_url']}", "gateway": told["gateway"]["url"]}
        callers = {kind: Caller(urls[kind], over) for kind in KINDS}
        for caller in callers.values():
            caller.start()
        try:
            time.sleep(WARM_UP_S)
            begins = [(time.monotonic(), "before")]
            time.sleep(seconds)
            begins += upgrade()
            time.sleep(seconds)
        finally:
            over.set()
            for caller in callers.values():
                caller.join()
    print(json.dumps(describe_machine()))
    print(f"{'':14}{'':10}{'calls':>7}{'failed':>8}{'p50 ms':>9}{'p99 ms':>9}{'most ms':>9}")
    ends = [*(start for start, _ in begins[1:]), float("inf")]
    for (start, phase), end in zip(begins, ends, strict=True):
        for kind, caller in callers.items():
            calls = [call for call in caller.calls if start <= call.began_s < end]
            took = [1000 * call.took_s for call in calls] or [float("nan")]
            numbers = f"{quantile(took, 0.5):9.1f}{quantile(took, 0.99):9.1f}{max(took):9.1f}"
            failed = sum(call.failed for call in calls)
            print(f"{phase:14}{kind.removesuffix('_url'):10}{len(calls):7}{failed:8}{numbers}")
    if any(call.failed for caller in callers.values() for call in caller.calls):
        raise SystemExit(1)


if __name__ == "__main__":
    main()

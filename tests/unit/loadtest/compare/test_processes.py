"""Servers of alternatives: those that rest leave the cores to the others."""

import sys
import time
from pathlib import Path

import psutil
from lychee_loadtest.compare.processes import pause, serve

BUSY = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'while True: pass'])"


def wait_for(state: str, processes: list[psutil.Process]) -> None:
    deadline = time.monotonic() + 10
    while {process.status() == state for process in processes} != {True}:
        assert time.monotonic() < deadline, [process.status() for process in processes]
        time.sleep(0.01)


def test_a_server_that_rests_takes_no_cpu_time_nor_does_what_it_started(tmp_path: Path) -> None:
    with serve([sys.executable, "-c", BUSY], lambda: True, tmp_path / "log") as server:
        root = psutil.Process(server.pid)
        while not root.children():
            time.sleep(0.01)
        started = [root, *root.children()]
        with pause(server):
            wait_for(psutil.STATUS_STOPPED, started)
            before = sum(sum(process.cpu_times()[:2]) for process in started)
            time.sleep(0.1)
            assert sum(sum(process.cpu_times()[:2]) for process in started) == before
        assert psutil.STATUS_STOPPED not in {process.status() for process in started}

"""A Docker engine for the tests: the one that runs, or one of their own, of which nothing stays behind."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Self

START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 60
KEPT_DATA = "LYCHEE_CONTAINERS_DATA"
"""Names a folder for the data of an engine of the tests' own; it is kept, and the next run builds little again."""

FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
BRIDGE = "docker0"
ITS_RULES = re.compile(r"DOCKER|docker0|br-[0-9a-f]{12}")


class Engine:
    """Finds an engine or starts one on the way in; on the way out it ends what it started.

    Attributes:
        host: The engine's address, for DOCKER_HOST.
    """

    def __init__(self) -> None:
        self.host = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
        self._folder: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        if not self._answers():
            self._start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._process is not None:
            self._stop()

    @property
    def is_own(self) -> bool:
        """Whether it was started here."""
        return self._process is not None

    def run(self, *arguments: str, check: bool = True, timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
        """Run a command of `docker`; fail with what it printed."""
        finished = subprocess.run(
            ["docker", "--host", self.host, *arguments], capture_output=True, text=True, timeout=timeout_s
        )
        assert not check or finished.returncode == 0, f"docker {' '.join(arguments)}: {finished.stderr}"
        return finished

    def _answers(self) -> bool:
        return self.run("info", check=False).returncode == 0

    def _start(self) -> None:
        self._rules = {family: read_rules(family) for family in ("iptables", "ip6tables")}
        self._forwarding = FORWARDING.read_text(encoding="ascii")
        self._folder = Path(tempfile.mkdtemp(prefix="lychee-engine-"))
        data = Path(os.environ.get(KEPT_DATA) or self._folder / "data")
        self.host = f"unix://{self._folder}/docker.sock"
        command = ["dockerd", f"--host={self.host}", f"--data-root={data}", f"--exec-root={self._folder}/exec"]
        command += [f"--pidfile={self._folder}/pid"]
        self._log = self._folder / "log"
        with self._log.open("wb") as log:
            # A group of its own: Ctrl-C must reach the tests first, and then, through them, the engine.
            self._process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                said = self._log.read_text(encoding="utf-8", errors="replace")[-3000:]
                self._stop()
                raise RuntimeError(f"dockerd did not start within {START_TIMEOUT_S} s:\n{said}")
            time.sleep(0.2)

    def _stop(self) -> None:
        assert self._process is not None
        assert self._folder is not None
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for line in reversed(Path("/proc/mounts").read_text(encoding="utf-8").splitlines()):
            target = line.split()[1]
            if target.startswith(f"{self._folder}/"):
                subprocess.run(["umount", target], check=True)
        subprocess.run(["ip", "link", "delete", BRIDGE], capture_output=True)
        for family, before in self._rules.items():
            remove_rules(family, before)
        FORWARDING.write_text(self._forwarding, encoding="ascii")
        shutil.rmtree(self._folder)


def read_rules(family: str) -> list[tuple[str, str]]:
    """Return all lines of `iptables-save`, each with its table, without counters."""
    saved = subprocess.run([f"{family}-save"], capture_output=True, text=True, check=True).stdout
    rules, table = [], ""
    for line in saved.splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif line.startswith(("-A", ":")):
            rules.append((table, re.sub(r" \[\d+:\d+\]$", "", line)))
    return rules


def remove_rules(family: str, before: list[tuple[str, str]]) -> None:
    """Take out the engine's rules and chains that were not there before, and put back the policies."""
    added = [rule for rule in read_rules(family) if rule not in before]
    own = [(table, line) for table, line in added if line.startswith("-A") and ITS_RULES.search(line)]
    chains = [(table, line[1:].split()[0]) for table, line in added if line.startswith(":DOCKER")]
    policies = [(table, line[1:].split()) for table, line in added if line == ":FORWARD DROP"]
    commands = [["-t", table, "-D", *line.split()[1:]] for table, line in own]
    commands += [["-t", table, "-X", chain] for table, chain in chains]
    commands += [["-t", table, "-P", chain, "ACCEPT"] for table, (chain, _) in policies]
    for command in commands:
        subprocess.run([family, *command], check=True, capture_output=True)

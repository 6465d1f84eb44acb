"""Machines with addresses of their own on this one: network namespaces on a bridge, and a name server for them."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import psutil

PREFIX: Final = "lychee-chaos"
SUBNET: Final = "10.213.0"  # nothing of it leaves its namespaces
NAME_SERVER: Final = f"{SUBNET}.2"
DOMAIN: Final = "lychee.test"
BRIDGE: Final = "bridge"
FILES: Final = Path("/etc/netns")  # `ip netns exec` shows a namespace the files of its folder there as /etc
READ: Final = "dnsmasq: read "  # what it logs when it has read its file of names
START_TIMEOUT_S: Final = 30.0
END_TIMEOUT_S: Final = 10.0
DIE_WITH_PARENT: Final = ("setpriv", "--pdeathsig", "TERM")  # of util-linux, which every Debian has


def find_missing() -> str:
    """Say what the tests in namespaces lack here; empty where they can run."""
    if os.geteuid() != 0:
        return "makes network namespaces, which only root may"
    for program in ("dnsmasq", "ip", "iptables", "setpriv"):
        if shutil.which(program) is None:
            return f"there is no {program} here; deploy/test-tools.sh gets it"
    probe = f"{PREFIX}-{os.getpid()}-probe"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True, check=False)
    subprocess.run(["ip", "netns", "delete", probe], capture_output=True, check=False)
    return "" if made.returncode == 0 else f"network namespaces cannot be made here: {made.stderr.strip()}"


class Network:
    """Machines that see each other and nothing else. Use it as a context manager; it leaves nothing behind.

    Names below DOMAIN are those of a headless service: whoever asks gets the addresses that `publish` was last told,
    for a second at most.

    Args:
        folder: For logs and the name server's file.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._addresses: dict[str, str] = {}
        self._published: dict[str, tuple[str, ...]] = {}
        self._started: list[subprocess.Popen[bytes]] = []
        self._name_server: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        _sweep(lambda pid: not psutil.pid_exists(pid))
        try:
            self._add(BRIDGE)
            self._ip(BRIDGE, "link", "add", "name", BRIDGE, "type", "bridge")
            self._ip(BRIDGE, "link", "set", BRIDGE, "up")
            self._start_name_server()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._remove()

    def add(self, machine: str) -> str:
        """Make a machine and return its address."""
        address = NAME_SERVER if machine == "names" else f"{SUBNET}.{10 + len(self._addresses)}"
        self._add(machine)
        port = f"p{len(self._addresses)}"
        self._addresses[machine] = address
        self._ip(BRIDGE, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", self.namespace(machine))
        self._ip(BRIDGE, "link", "set", port, "master", BRIDGE, "up")
        self._ip(machine, "address", "add", f"{address}/24", "dev", "eth0")
        self._ip(machine, "link", "set", "eth0", "up")
        return address

    def namespace(self, machine: str) -> str:
        """Return the name of a machine's namespace, which says whose it is."""
        return f"{PREFIX}-{os.getpid()}-{machine}"

    def start(
        self, machine: str, command: Sequence[str | Path], environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a process on a machine; its output is in `folder`, and it ends with the network at the latest."""
        line = [*DIE_WITH_PARENT, "ip", "netns", "exec", self.namespace(machine), *map(str, command)]
        variables = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **(environment or {})}
        log = self.folder / f"{machine}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                line, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=variables
            )
        self._started.append(process)
        return process

    def run(self, machine: str, *command: str) -> str:
        """Run a command on a machine to its end, and return what it prints."""
        line = ["ip", "netns", "exec", self.namespace(machine), *command]
        variables = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(line, capture_output=True, text=True, env=variables, check=False)
        assert done.returncode == 0, (line, done.stderr)
        return done.stdout

    def publish(self, name: str, *addresses: str) -> None:
        """Have the name server answer with these addresses from now on, and with no others."""
        self._published[name] = addresses
        lines = [f"{address} {name}.{DOMAIN}\n" for name, known in self._published.items() for address in known]
        partial = self._hosts.with_suffix(".partial")
        partial.write_text("".join(lines), encoding="utf-8")
        partial.replace(self._hosts)
        assert self._name_server is not None
        count = self._names_log().count(READ)
        self._name_server.send_signal(signal.SIGHUP)
        self._wait_for_names(lambda log: log.count(READ) > count)

    @contextlib.contextmanager
    def unreachable(self, machine: str) -> Iterator[None]:
        """Drop every packet to and from a machine, without a word to either side."""
        rules = [("INPUT", "-i", "eth0"), ("OUTPUT", "-o", "eth0")]
        for rule in rules:
            self.run(machine, "iptables", "-A", *rule, "-j", "DROP")
        try:
            yield
        finally:
            for rule in rules:
                self.run(machine, "iptables", "-D", *rule, "-j", "DROP")

    @property
    def _hosts(self) -> Path:
        return self.folder / "hosts"

    def _start_name_server(self) -> None:
        address = self.add("names")
        self._hosts.touch()
        options = [
            "--no-daemon",
            "--conf-file=/dev/null",
            "--no-hosts",
            "--no-resolv",
            f"--addn-hosts={self._hosts}",
            f"--local=/{DOMAIN}/",
            "--local-ttl=1",
            "--user=root",
            "--pid-file=",
            "--bind-interfaces",
            f"--listen-address={address}",
        ]
        self._name_server = self.start("names", ["dnsmasq", *options])
        self._wait_for_names(lambda log: READ in log)

    def _names_log(self) -> str:
        return (self.folder / "names.log").read_text(encoding="utf-8")

    def _wait_for_names(self, condition: Callable[[str], bool]) -> None:
        assert self._name_server is not None
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while not condition(log := self._names_log()):
            assert self._name_server.poll() is None, log
            assert time.monotonic() < deadline_s, log
            time.sleep(0.02)

    def _add(self, machine: str) -> None:
        namespace = self.namespace(machine)
        subprocess.run(["ip", "netns", "add", namespace], check=True)
        self._ip(machine, "link", "set", "lo", "up")
        files = FILES / namespace
        files.mkdir(parents=True)
        (files / "resolv.conf").write_text(
            f"nameserver {NAME_SERVER}\noptions timeout:1 attempts:2\n", encoding="utf-8"
        )

    def _ip(self, machine: str, *arguments: str) -> None:
        subprocess.run(["ip", "-netns", self.namespace(machine), *arguments], check=True)

    def _remove(self) -> None:
        for process in self._started:
            if process.poll() is None:
                process.terminate()
        for process in self._started:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(END_TIMEOUT_S)
        _sweep(lambda pid: pid == os.getpid())
        for process in self._started:
            process.wait(END_TIMEOUT_S)


def _sweep(is_over: Callable[[int], bool]) -> None:
    """Remove the namespaces whose test process is over, and what still runs in them."""
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    for namespace in (line.split()[0] for line in listed.splitlines() if line.startswith(f"{PREFIX}-")):
        if not is_over(int(namespace.removeprefix(f"{PREFIX}-").split("-")[0])):
            continue
        pids = subprocess.run(["ip", "netns", "pids", namespace], capture_output=True, text=True, check=False).stdout
        for pid in map(int, pids.split()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        subprocess.run(["ip", "netns", "delete", namespace], check=False)
        shutil.rmtree(FILES / namespace, ignore_errors=True)

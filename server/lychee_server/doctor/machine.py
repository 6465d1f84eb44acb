"""Checks of this machine for `lychee doctor`: what a server here left, what is in its way, and what it needs."""

import re
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from lychee_client.checks import Check, CheckContext, CheckResult, Verdict, existing_folder, run_checks
from lychee_client.repository import process_bytes

from lychee_server import defaults, processes, state
from lychee_server.defaults import MIB
from lychee_server.doctor.files import check_config, check_permissions, check_repository, find_repository, walk
from lychee_server.doctor.gateway import check_gateway
from lychee_server.doctor.gpu import check_gpu
from lychee_server.listeners import find_listeners
from lychee_server.local_http import reachable_host
from lychee_server.memory import available_memory_bytes
from lychee_server.status import read_memory

SPARE_MEMORY_BYTES: Final = 256 * MIB
SPARE_DISK_BYTES: Final = 64 * MIB
SPARE_SHARED_MEMORY_BYTES: Final = 32 * MIB
_MARKER = re.compile(r"lychee_[0-9a-f]{12}_")


def check_machine(context: CheckContext) -> Iterable[CheckResult]:
    """Run all checks of this distribution."""
    return run_checks(CHECKS, context)


def check_ports(context: CheckContext) -> Iterator[CheckResult]:
    """The server listens on its ports; without one, nobody else does."""
    known = state.read_state()
    if known is not None and not known.is_running():
        known = None
    listeners = find_listeners()
    for kind, port, triton in _expected_ports(known):
        name = f"port {port}"
        pid, program = listeners.get(port, (None, ""))
        if program and known is not None and pid in _own_pids(known):
            yield CheckResult(name, "ok", f"{kind}: our server, pid {pid}")
        elif program == "tritonserver" and context.status.live:
            yield CheckResult(name, "ok", f"{kind}: a Triton that `lychee load` did not start here, pid {pid}")
        elif program:
            holder = f"{program}, pid {pid}" if pid else program
            advice = f"stop it, or choose another port with --{kind.split()[0]}-port of `lychee load`"
            verdict: Verdict = "warning" if context.status.live else "failed"
            yield CheckResult(name, verdict, f"{kind}: taken by {holder}", advice)
        elif triton is not None:
            seen = f"nobody listens for {kind}, though the server runs with pid {triton.pid}"
            yield CheckResult(name, "failed", seen, f"wait if it is still loading, else see {triton.log_path}")
        else:
            yield CheckResult(name, "ok", f"{kind}: free")


def _expected_ports(known: state.ServerState | None) -> Iterator[tuple[str, int, state.TritonState | None]]:
    """Yield the ports of the Tritons that run, or those that one would have here."""
    if known is None:
        yield "http", defaults.DEFAULT_HTTP_PORT, None
        yield "grpc", defaults.DEFAULT_GRPC_PORT, None
        yield "metrics", defaults.DEFAULT_METRICS_PORT, None
        return
    for triton in known.tritons:
        for kind, port in (("http", triton.http_port), ("grpc", triton.grpc_port), ("metrics", triton.metrics_port)):
            yield f"{kind} of {triton.name}" if triton.name else kind, port, triton


def _own_pids(known: state.ServerState) -> set[int]:
    """Return the processes that listen for a server: its Tritons, and its supervisor for the metrics."""
    return {triton.pid for triton in known.tritons} | (set() if known.supervisor is None else {known.supervisor.pid})


def check_state(context: CheckContext) -> Iterator[CheckResult]:
    """The state file is true, and no server that ended left something behind."""
    known, path = state.read_state(), state.state_path()
    if known is None and path.exists():
        yield CheckResult("state", "failed", f"{path} is damaged", "`lychee stop` removes it")
    elif known is None:
        yield CheckResult("state", "ok", "`lychee load` has left no server running")
    elif not known.is_running():
        left = len(processes.find_processes(known.marker))
        seen = f"the server with pid {known.first.pid} ended without `lychee stop`, and left {left} processes"
        yield CheckResult("state", "warning", seen, "`lychee stop` cleans up after it")
    else:
        asked = known.find_triton(context.address[1])
        triton = asked or known.first
        seen = f"pid {triton.pid}, up {triton.process.uptime_s:.0f} s, {triton.repository}"
        if asked is not None:
            yield CheckResult("state", "ok", seen)
        else:
            advice = f"check that one with --url {reachable_host(triton.host)}:{triton.grpc_port}"
            yield CheckResult("state", "warning", f"{seen}: not the server that was asked for", advice)
    stale = find_stale_regions()
    if stale:
        seen = f"{sum(stale.values()) // MIB} MiB belong to {len(stale)} servers that ended"
        prefixes = " ".join(f"{processes.SHARED_MEMORY / marker}*" for marker in sorted(stale))
        yield CheckResult("shared memory", "warning", seen, f"rm {prefixes}")


def find_stale_regions() -> Counter[str]:
    """Return the bytes of shared memory by the markers of servers that ended, stubs included."""
    sizes: Counter[str] = Counter()
    for path, about in walk(processes.SHARED_MEMORY):
        marker = _MARKER.match(path.name)
        if marker is not None:
            sizes[marker[0]] += about.st_size
    return Counter({marker: size for marker, size in sizes.items() if not processes.find_processes(marker)})


def check_disk(context: CheckContext) -> Iterator[CheckResult]:
    """There is room for compiled models, for the log, and for the shared memory of the models' processes."""
    cache, logs = defaults.cache_dir(), defaults.state_dir()
    compiled = sum(about.st_size for path, about in walk(cache / "openvino") if path.is_file())
    to_compile = max(0, sum(model_sizes(context)) - compiled)
    for purpose, folder, needed, remedy in (
        ("cache", cache, to_compile + SPARE_DISK_BYTES, "set LYCHEE_CACHE_DIR"),
        ("state and log", logs, SPARE_DISK_BYTES, "set LYCHEE_STATE_DIR"),
        ("shared memory", processes.SHARED_MEMORY, SPARE_SHARED_MEMORY_BYTES, "give the container a larger --shm-size"),
    ):
        free = shutil.disk_usage(existing_folder(folder)).free
        seen = f"{purpose}: {free // MIB} MiB free in {folder}, {needed // MIB} MiB needed"
        if free >= needed:
            yield CheckResult("disk", "ok", seen)
        else:
            yield CheckResult("disk", "failed", seen, f"delete something there, or {remedy}")


def check_memory(context: CheckContext) -> Iterator[CheckResult]:
    """There is memory for the models, or where they are loaded, some to spare."""
    available = available_memory_bytes()
    known = state.read_state()
    if known is not None and known.is_running():
        used = sum(process.pss_bytes for process in read_memory(known.marker))
        needed = SPARE_MEMORY_BYTES
        seen = f"{available // MIB} MiB available, {needed // MIB} MiB should be; the server has {used // MIB} MiB"
    else:
        sizes = model_sizes(context)
        needed = sum(map(process_bytes, sizes)) + SPARE_MEMORY_BYTES
        seen = f"{available // MIB} MiB available, about {needed // MIB} MiB needed for {len(sizes)} models"
    if available >= needed:
        yield CheckResult("memory", "ok", seen)
    else:
        advice = "end other programs, give the container more, or export with --precision w8 or w4"
        yield CheckResult("memory", "warning", seen, advice)


def model_sizes(context: CheckContext) -> list[int]:
    """Return the size of each model file of the repository, in bytes.

    Raises:
        CheckSkipped: There is no repository.
    """
    return [path.stat().st_size for path in sorted(find_repository(context).glob("*/*/*.onnx"))]


CHECKS: Final[Mapping[str, Check]] = {
    "repository": check_repository,
    "ports": check_ports,
    "gateway": check_gateway,
    "state": check_state,
    "permissions": check_permissions,
    "disk": check_disk,
    "memory": check_memory,
    "gpu": check_gpu,
    "config": check_config,
}

"""Checks of the gateway on this machine, for `lychee doctor`."""

from __future__ import annotations

from collections.abc import Iterator

import psutil
from lychee_client.checks import CheckContext, CheckResult, Verdict

from lychee_server import state, web
from lychee_server.defaults import DEFAULT_HOST
from lychee_server.gateway.process import read_problem
from lychee_server.gateway.settings import DEFAULT_PORT
from lychee_server.listeners import find_listeners

MODULE = "lychee_server.gateway"


def check_gateway(context: CheckContext) -> Iterator[CheckResult]:
    """The gateway that was started runs and is ready; without one, its port is free; the page can be served."""
    server = state.read_state()
    known = None if server is None else server.gateway
    if known is None:
        yield _check_free_port(context)
    elif not known.is_running():
        seen = f"it ended without `lychee stop` (pid {known.pid})"
        advice = f"see {known.log_path}, then run `lychee stop` and `lychee load`"
        yield CheckResult("gateway", "failed", seen, advice)
    else:
        problem = read_problem(known.host, known.port)
        seen = f"port {known.port}, pid {known.pid}"
        if problem is None:
            yield CheckResult("gateway", "ok", f"{seen}: ready")
        else:
            yield CheckResult("gateway", "failed", f"{seen}: not ready: {problem}", f"see {known.log_path}")
    yield _check_page()


def _check_free_port(context: CheckContext) -> CheckResult:
    """Nobody is in the way of the gateway that `lychee load` would start."""
    pid, program = find_listeners().get(DEFAULT_PORT, (None, ""))
    if not program:
        return CheckResult("gateway", "ok", f"none was started; port {DEFAULT_PORT} is free")
    holder = f"{program}, pid {pid}" if pid else program
    if pid is not None and _is_gateway(pid):
        problem = read_problem(DEFAULT_HOST, DEFAULT_PORT)
        seen = f"port {DEFAULT_PORT}: a gateway that `lychee load` did not start here, pid {pid}"
        if problem is None:
            return CheckResult("gateway", "ok", f"{seen}: ready")
        return CheckResult("gateway", "warning", f"{seen}: not ready: {problem}", "see what it logs")
    verdict: Verdict = "warning" if context.status.live else "failed"
    advice = "stop it, or choose another port with --port of `lychee load`"
    return CheckResult("gateway", verdict, f"port {DEFAULT_PORT} is taken by {holder}", advice)


def _is_gateway(pid: int) -> bool:
    try:
        command = psutil.Process(pid).cmdline()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False
    return MODULE in command or (len(command) > 2 and command[2] == "gateway" and command[1].endswith("lychee"))


def _check_page() -> CheckResult:
    if not web.is_installed():
        seen = f"{web.NEEDED} is not installed, so the gateway has no page"
        return CheckResult("web page", "warning", seen, f"{web.INSTALL}, or start with --no-web")
    return CheckResult("web page", "ok", f"{web.NEEDED} is installed")

"""The two that are watched: Triton with its stubs, and the gateway."""

from __future__ import annotations

import contextlib
import http.client
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

import psutil

from lychee_server.errors import LycheeServerError
from lychee_server.gateway.process import GatewayProcess
from lychee_server.processes import ProcessId, describe_process, find_processes, is_server
from lychee_server.supervision.questions import ENSEMBLE, ask_gateway, ask_grpc, fetch_config, make_inference
from lychee_server.supervision.watch import Watch
from lychee_server.triton import TritonServer

__all__ = ["Child", "GatewayChild", "TritonChild"]

LOOK_TIMEOUT_S: Final = 1.0


class Child(Protocol):
    """A process, or a few that live and die together."""

    name: str
    is_spare: bool  # whether others of its kind are of use without it

    def start_again(self) -> None:
        """Kill what is left of it, and start it."""

    def end(self) -> None:
        """Kill what is left of it."""

    def check_ready(self) -> bool:
        """Tell whether it is up after a start, and begin to watch it when it is.

        Raises:
            LycheeServerError: It will never be.
        """

    def find_problem(self, now_s: float) -> str | None:
        """Say why it has to be started again; None if it does not have to be."""

    def stop_watching(self) -> None:
        """Ask it nothing more."""


class TritonChild:
    """Triton and the stubs of its models. A dead stub takes the whole with it: Triton 2.51 goes on calling it ready.

    Args:
        server: A TritonServer that was started.
        name: What it is called.

    Attributes:
        server: The TritonServer, until another one takes its place.
    """

    def __init__(self, server: TritonServer, name: str = "triton") -> None:
        self.name = name
        self.server = server
        self._stubs: dict[ProcessId, str] = {}
        self._watches: list[Watch] = []

    is_spare = True

    def start_again(self) -> None:
        """See Child."""
        self.server.start_again()

    def end(self) -> None:
        """See Child."""
        self.server.stop(timeout_s=0)

    def check_ready(self) -> bool:
        """See Child."""
        server = self.server
        try:
            if not server.is_up(LOOK_TIMEOUT_S):
                return False
            if failed := server.find_failed_models():
                raise LycheeServerError("; ".join(f"{name} is not loaded: {why}" for name, why in failed.items()))
            self._stubs = _find_stubs(server.marker)
            self._watches = [Watch("gRPC", partial(ask_grpc, server.host, server.grpc_port))]
            for model in server.models:
                config = fetch_config(server.host, server.http_port, model)
                if config.get("platform") != ENSEMBLE:
                    ask = make_inference(server.host, server.http_port, config)
                    self._watches.append(Watch(model, ask, cpu_s=self._measure_cpu(model)))
        except (OSError, http.client.HTTPException):
            return False
        for watch in self._watches:
            watch.start()
        return True

    def take(self, server: TritonServer) -> None:
        """Watch another one in the place of this one; it has to be checked as after a start."""
        self.stop_watching()
        self.server = server

    def _measure_cpu(self, model: str) -> Callable[[], float]:
        """Return a function that measures the CPU time of a model's stubs; Triton's own, where it has none."""
        pids = [stub.pid for stub, name in self._stubs.items() if name.startswith(f"{model}_")]

        def measure() -> float:
            used = 0.0
            for pid in pids or [self.server.process_id.pid]:
                with contextlib.suppress(psutil.Error):
                    times = psutil.Process(pid).cpu_times()
                    used += times.user + times.system
            return used

        return measure

    def find_problem(self, now_s: float) -> str | None:
        """See Child."""
        if (code := self.server.poll()) is not None:
            return _describe_end(code)
        for stub, name in self._stubs.items():
            if not stub.is_running():
                return f"the stub {name} ended"
        return next(filter(None, (watch.find_problem(now_s) for watch in self._watches)), None)

    def stop_watching(self) -> None:
        """See Child."""
        for watch in self._watches:
            watch.end()
        self._watches, self._stubs = [], {}


class GatewayChild:
    """The gateway.

    Args:
        gateway: A GatewayProcess that was started.
    """

    name = "gateway"
    is_spare = False

    def __init__(self, gateway: GatewayProcess) -> None:
        self._gateway = gateway
        self._watch: Watch | None = None

    def start_again(self) -> None:
        """See Child."""
        self._gateway.start_again()

    def end(self) -> None:
        """See Child."""
        self._gateway.kill()

    def check_ready(self) -> bool:
        """See Child."""
        if self._watch is None:
            self._watch = Watch("it", partial(ask_gateway, self._gateway.host, self._gateway.port))
            self._watch.start()
        return self._watch.answered

    def find_problem(self, now_s: float) -> str | None:
        """See Child."""
        if (code := self._gateway.poll()) is not None:
            return _describe_end(code)
        if self._watch is None or not self._watch.answered:  # it still starts
            return None
        return self._watch.find_problem(now_s)

    def stop_watching(self) -> None:
        """See Child."""
        if self._watch is not None:
            self._watch.end()
        self._watch = None


def _find_stubs(marker: str) -> dict[ProcessId, str]:
    stubs = {}
    for process in find_processes(marker):
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            if not is_server(process):
                stubs[ProcessId.of(process.pid)] = describe_process(process)
    return stubs


def _describe_end(code: int) -> str:
    return f"it ended by signal {-code}" if code < 0 else f"it ended with exit code {code}"

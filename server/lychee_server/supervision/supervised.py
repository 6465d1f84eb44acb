"""The server of `lychee load`, kept up, and what it says of itself."""

from __future__ import annotations

import itertools
import logging
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lychee_server import state
from lychee_server.errors import LycheeServerError
from lychee_server.gateway.process import GatewayProcess
from lychee_server.log_files import empty_large, most_bytes, rotate_own
from lychee_server.supervision.children import Child, GatewayChild
from lychee_server.supervision.requests import Job, UpgradeRequest, refuse
from lychee_server.supervision.served import ServedRepository
from lychee_server.supervision.supervisor import Supervisor
from lychee_server.supervision.upgrade import Upgrade

__all__ = ["SupervisedServer", "configure_log"]

_logger = logging.getLogger("lychee_server.supervision")


class SupervisedServer:
    """A Triton for each repository, and perhaps a gateway.

    Args:
        served: The repositories, whose Tritons are not started yet; the first is what a caller gets who names none.
        gateway: None runs Triton alone.
        log_path: The file that this process writes once it supervises; None: its output is no file of ours.
    """

    def __init__(
        self, served: Sequence[ServedRepository], gateway: GatewayProcess | None, log_path: Path | None = None
    ) -> None:
        self.served = tuple(served)
        self.gateway = gateway
        self._log_path = log_path
        self._supervisor: Supervisor | None = None
        self._gave_up: str | None = None
        self._text = ""
        self._lock = threading.Lock()
        self._job: Job | None = None
        self._steps: Iterator[None] | None = None
        self._markers = map("{}{}_".format, itertools.repeat(state.own_marker()), itertools.count(len(self.served) + 1))

    def describe(self) -> str:
        """Return the last published state as text; empty before the first."""
        return self._text

    def publish(self) -> None:
        """Keep what is true now for those who ask, and write it into the state file."""
        restarts = None if self._supervisor is None else self._supervisor.restarts
        tritons = [each.describe() for each in self.served if each.server.pid is not None]
        if not tritons:
            return
        known = state.ServerState.of(tritons, self.served[0].server.key, self.gateway, restarts, self._gave_up)
        self._text = known.format()
        try:
            state.write_state(known)
        except OSError as error:  # who asks gets the answer without the file
            _logger.warning("%s cannot be written (%s)", state.state_path(), error.strerror)

    def supervise(self, *, start_timeout_s: float, most_restarts: int, beat: Callable[[], None]) -> None:
        """Watch, start again what ends or hangs, and do what is asked. It returns by exception alone.

        Raises:
            LycheeServerError: One of them failed too often.
        """
        children: list[Child] = [each.child for each in self.served]
        if self.gateway is not None:
            children.append(GatewayChild(self.gateway))
        self._supervisor = Supervisor(
            children, start_timeout_s=start_timeout_s, most_restarts=most_restarts, publish=self.publish
        )
        most = most_bytes()

        def work() -> None:
            beat()
            self._advance(start_timeout_s)
            for each in self.served:
                if each.server.log_path is not None:
                    empty_large(each.server.log_path, most)
            if self._log_path is not None:
                rotate_own(self._log_path, (1, 2), most)

        try:
            self._supervisor.run(work)
        except LycheeServerError as error:
            self._gave_up = str(error)
            raise

    def take(self, line: str) -> Iterator[str]:
        """Take a request from another process, have the loop carry it out, and yield what there is to say."""
        try:
            job = Job(UpgradeRequest.parse(line))
        except LycheeServerError as error:
            yield from refuse(str(error))
            return
        with self._lock:
            busy = self._job is not None
            if not busy:
                self._job = job
        if busy:
            yield from refuse("another upgrade is under way; wait for it")
        else:
            yield from job.lines()

    def _advance(self, timeout_s: float) -> None:
        """Do the next step of what was asked."""
        job = self._job
        if job is None:
            return
        failure = None
        try:
            if self._steps is None:
                self._steps = self._begin(job, timeout_s)
            next(self._steps)
            return
        except StopIteration:
            pass
        except Exception as error:  # whatever it is, what serves has to be watched on
            _logger.error("the upgrade failed: %s", error)
            failure = str(error)
        self._steps = None
        with self._lock:
            self._job = None
        self.publish()
        job.end(failure)

    def _begin(self, job: Job, timeout_s: float) -> Iterator[None]:
        """Return the steps of an upgrade."""
        request, supervisor = job.request, self._supervisor
        assert supervisor is not None
        names = [each.name for each in self.served]
        if request.model is not None and request.model not in names:
            raise LycheeServerError(f"no model is called {request.model}; expected {', '.join(names)}")
        each = self.served[0 if request.model is None else names.index(request.model)]
        old = each.server
        if not supervisor.is_running(each.child):
            raise LycheeServerError(f"{each.child.name} is not ready now; try again when `lychee status` says so")
        repository = old.repository if request.repository is None else Path(request.repository)
        config_name = old.export.config_name if request.config_name is None else request.config_name or None
        new = old.make_successor(repository, config_name, next(self._markers))

        def switch() -> None:
            each.child.take(new)
            supervisor.renew(each.child)
            _logger.warning("%s: export %d took over from %d", each.name, new.export.version, old.export.version)

        upgrade = Upgrade(old, new, timeout_s=timeout_s, force=request.force, say=job.say, switch=switch)
        return upgrade.steps()

    def stop(self) -> None:
        """Stop all for good, whatever signals arrive meanwhile. Of them only a reason to give up stays known."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        if isinstance(self._steps, Generator):
            self._steps.close()
        if self.gateway is not None:
            self.gateway.stop()
        started = any(each.server.pid is not None for each in self.served)
        with ThreadPoolExecutor(len(self.served), "stop") as threads:
            list(threads.map(ServedRepository.stop, self.served))
        if not started:
            return
        if self._gave_up is None:
            state.clear_state()
        else:
            self.publish()


def configure_log() -> None:
    """Print what the supervisor does to standard error, with the time."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    _logger.addHandler(handler)
    _logger.setLevel(logging.INFO)
    _logger.propagate = False

"""One Triton takes the place of another, without a moment in which none answers.

The new one loads beside the old one, on the same ports, and gets no connection (see `lychee_server.steering`). Once its
golden pairs match, it gets all new connections. The old one answers what it has begun, and refuses everything else by
unloading its models: by that our clients know that they have to connect again. Then it ends.
"""

from __future__ import annotations

import http.client
import logging
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, TypeVar

from lychee_client.repository import ASSETS_MODEL

from lychee_server.defaults import MIB
from lychee_server.errors import LycheeServerError, ServerStartError
from lychee_server.golden_pairs import check_golden_pairs
from lychee_server.memory import available_memory_bytes, estimate_server_bytes
from lychee_server.processes import listen
from lychee_server.relay import Relay
from lychee_server.steering import PortSteering
from lychee_server.supervision.questions import ENSEMBLE, fetch_config
from lychee_server.triton import TritonServer
from lychee_server.triton_admin import unload

__all__ = ["Upgrade"]

LOCAL: Final = "127.0.0.1"
LOADS: Final = 3  # Triton 2.51 aborts now and then while it loads (boost's lock_exception)
DRAIN_TIMEOUT_S: Final = 60.0  # for what the old one has begun
LEAVE_S: Final = 2.0  # for callers to hear the refusal, before the connection breaks
END_TIMEOUT_S: Final = 2.0  # it has nothing to answer any more, and waits for connections without need

_logger = logging.getLogger("lychee_server.supervision")
T = TypeVar("T")


class Upgrade:
    """Carried out step by step, so that whoever supervises goes on doing that in between.

    Args:
        old: What runs.
        new: Its successor, which is not started yet.
        timeout_s: How long the new one may take to load.
        force: Also where there seems to be too little memory for both.
        say: Gets a line for whoever has asked.
        switch: Called when the new one gets the connections: from then on it is the one to watch.
    """

    def __init__(
        self,
        old: TritonServer,
        new: TritonServer,
        *,
        timeout_s: float,
        force: bool,
        say: Callable[[str], None],
        switch: Callable[[], None],
    ) -> None:
        self._old, self._new = old, new
        self._timeout_s = timeout_s
        self._force = force
        self._say = say
        self._switch = switch
        self._switched = False
        self._began = old.process_id
        self._steering: dict[int, PortSteering] = {}
        self._threads = ThreadPoolExecutor(1, "upgrade")

    def steps(self) -> Iterator[None]:
        """Yield while there is something to wait for. Closed or failed in the middle, it leaves the one that serves.

        Raises:
            LycheeServerError: The new one cannot serve; the old one does, as before.
        """
        try:
            yield from self._load()
            yield from self._check()
            for steering in self._steering.values():
                steering.switch()
            self._switched = True
            self._switch()
        except BaseException:
            self._new.stop(timeout_s=0)
            self._release()
            raise
        try:
            self._say("new connections go to it; the old one answers what it has begun")
            yield from self._drain()
        finally:
            self._old.stop(timeout_s=0)
            self._release()

    def _load(self) -> Iterator[None]:
        new = self._new
        self._say(f"preparing {new.repository}")
        yield from self._in_thread(new.export.prepare)
        needed, available = estimate_server_bytes(new.export.folder), available_memory_bytes()
        if available < needed:
            shortage = (
                f"{available // MIB} MiB of memory are available, and a second server needs about {needed // MIB}"
            )
            if not self._force:
                raise LycheeServerError(f"{shortage}; end other programs, or try it all the same with --force")
            self._say(shortage)
        for note in filter(None, (new.export.variant_note, new.export.choice_note)):
            self._say(note)
        for port in (new.http_port, new.grpc_port):
            self._steering[port] = PortSteering(new.host, port)
        self._check_old()
        new.launch()
        self._say(f"loading export {new.export.version} beside the one that serves (pid {new.pid})")
        for left in reversed(range(LOADS)):
            try:
                for _ in new.waiting(self._timeout_s):
                    self._check_old()
                    yield
                break
            except ServerStartError:
                code = new.poll()
                if not left or code is None or code >= 0:
                    raise
                self._say(f"it ended by signal {-code} while it loaded, as Triton 2.51 does now and then; once more")
                new.start_again()
        with self._reach(new.http_port, new=True) as door:
            yield from self._in_thread(partial(new.check_models, door.port))

    def _check(self) -> Iterator[None]:
        if ASSETS_MODEL not in self._new.models:
            self._say(f"no golden pairs to check: the repository has no {ASSETS_MODEL}")
            return
        with self._reach(self._new.grpc_port, new=True) as door:
            _, found = yield from self._in_thread(partial(check_golden_pairs, f"{LOCAL}:{door.port}"))
        self._new.calm_log()
        self._say(found)

    def _drain(self) -> Iterator[None]:
        began_s = time.monotonic()
        with self._reach(self._old.http_port, new=False) as door:
            yield from self._in_thread(partial(self._unload, door.port))
        until_s = time.monotonic() + LEAVE_S
        while time.monotonic() < until_s:
            yield
        yield from self._in_thread(partial(self._old.stop, END_TIMEOUT_S))
        self._say(f"the old one has ended, after {time.monotonic() - began_s:.1f} s")

    def _unload(self, http_port: int) -> None:
        """Have the old one refuse requests; ensembles first, since they need the others to the end."""
        old = self._old
        try:
            configs = {model: fetch_config(LOCAL, http_port, model) for model in old.models}
            ensembles = [model for model, config in configs.items() if config.get("platform") == ENSEMBLE]
            for models in (ensembles, [model for model in configs if model not in ensembles]):
                if not unload(LOCAL, http_port, old.key, models, timeout_s=DRAIN_TIMEOUT_S):
                    self._say(f"it has not answered everything within {DRAIN_TIMEOUT_S:g} s, and is ended all the same")
        except (OSError, http.client.HTTPException, LycheeServerError) as error:
            _logger.warning("the old Triton cannot be drained: %s", error)  # its callers repeat what they lose

    def _reach(self, port: int, *, new: bool) -> Relay:
        """Return a door to one of the two alone."""
        return Relay(listen(LOCAL, 0), partial(self._steering[port].connect, new=new))

    def _in_thread(self, function: Callable[[], T]) -> Generator[None, None, T]:
        """Yield until a function has returned in a thread; return what it returned.

        Raises:
            LycheeServerError: The one that gets the connections failed meanwhile.
        """
        future = self._threads.submit(function)
        while not future.done():
            if self._switched:
                self._check_new()
            else:
                self._check_old()
            yield
        return future.result()

    def _check_old(self) -> None:
        if self._old.process_id != self._began or self._old.poll() is not None:
            raise LycheeServerError("the Triton that runs failed meanwhile and is started again; try again after that")

    def _check_new(self) -> None:
        if self._new.poll() is not None:  # it will be started again, and then needs the ports to itself
            raise LycheeServerError("the new Triton ended right after it had taken over, and is started again")

    def _release(self) -> None:
        for steering in self._steering.values():
            steering.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

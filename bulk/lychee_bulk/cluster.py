"""Ray, on this machine alone or a cluster that runs; what is started here ends here, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Final

from lychee_bulk.errors import ClusterError

PREFIX: Final = "lychee-bulk-"
LOOPBACK: Final = "127.0.0.1"
STORE_BYTES: Final = 256 * 2**20
MIN_CPUS: Final = 4
"""Of Ray's book-keeping: on two cores, reading and two actors have their places too."""
CONNECT_S: Final = 10.0
EXPECTED: Final = "expected HOST:PORT of the head node, or auto on one of its nodes; without --address Ray runs here"
EXIT_SIGTERM: Final = 128 + signal.SIGTERM
QUIET: Final = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # it calls what Ray Data does itself an error
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


@contextlib.contextmanager
def connected(address: str | None = None, store_bytes: int = STORE_BYTES) -> Iterator[Any]:
    """Start a Ray of this process's own, or join a cluster; yield the module `ray`.

    An own one has the node address 127.0.0.1 and no dashboard, and ends with this process, however that ends. Some of
    its processes listen on all interfaces all the same (seen with Ray 2.60), behind Ray's token.

    Args:
        address: The address of a cluster, "auto" for the one of this node; None starts one.
        store_bytes: The size of the object store of an own one.

    Raises:
        ClusterError: There is no cluster at the address.
    """
    if address is not None:
        _check_address(address)
    os.environ.update(QUIET)
    import ray

    if ray.is_initialized():  # the caller's
        with raise_on_sigterm():
            yield ray
        return
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    folder = None
    with raise_on_sigterm():
        try:
            if address is None:
                _sweep()
                folder = tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir="/tmp")  # sockets have short paths
                start = partial(
                    ray.init,
                    num_cpus=max(MIN_CPUS, os.cpu_count() or 1),
                    num_gpus=0,
                    include_dashboard=False,
                    object_store_memory=store_bytes,
                    _node_ip_address=LOOPBACK,
                    _temp_dir=folder,
                    **quiet,
                )
            else:
                start = partial(ray.init, address=address, **quiet)
            try:
                with _silent_stderr():
                    start()
            except ConnectionError as error:
                raise ClusterError(f"there is no Ray cluster at {address!r}: {error}; {EXPECTED}") from error
            with raise_on_sigterm():  # Ray has a handler of its own
                yield ray
        finally:
            ray.shutdown()
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)


def settle_context() -> None:
    """Tell Ray Data to be quiet, and to keep every unit in a block of its own."""
    from ray.data import DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.target_max_block_size = 1  # a block ends after the row that exceeds it: after each unit
    logging.getLogger("ray.data").setLevel(logging.ERROR)


@contextlib.contextmanager
def raise_on_sigterm() -> Iterator[None]:
    """Turn SIGTERM into an exception, as Ctrl-C is one; on the way out the old handler is back."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(EXIT_SIGTERM)

    try:
        previous = signal.signal(signal.SIGTERM, leave)
    except ValueError:  # not in the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _check_address(address: str) -> None:
    """Make sure that something answers at HOST:PORT: Ray itself takes minutes to find out."""
    host, _, port = address.rpartition(":")
    if not port.isdigit() or "/" in host:  # "auto", or the address of a proxy
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_S).close()
    except (OSError, OverflowError) as error:
        raise ClusterError(f"there is no Ray cluster at {address!r}: {error}; {EXPECTED}") from error


@contextlib.contextmanager
def _silent_stderr() -> Iterator[None]:
    """Keep to itself what Ray's native code says on standard error: at the start, that it will say little."""
    sys.stderr.flush()
    stderr = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


def _sweep() -> None:
    """Remove the folders of runs that were killed."""
    for folder in Path("/tmp").glob(f"{PREFIX}*"):
        number = folder.name.removeprefix(PREFIX).partition("-")[0]
        with contextlib.suppress(OSError):
            if number.isdigit() and not Path("/proc", number).exists() and folder.stat().st_uid == os.getuid():
                shutil.rmtree(folder, ignore_errors=True)

"""The processes of `lychee load`: one that supervises, and one above it that sweeps up if that one is killed."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Final

import psutil

from lychee_server import defaults
from lychee_server.errors import LycheeServerError
from lychee_server.log_files import APPEND, most_bytes, rotate_own
from lychee_server.processes import stop_processes

__all__ = ["Guard"]

PR_SET_PDEATHSIG: Final = 1
PR_SET_CHILD_SUBREAPER: Final = 36
SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
READY: Final = b"1"

_logger = logging.getLogger("lychee_server.supervision")


class Guard:
    """Splits this process, so that nothing is left behind whichever of its parts is killed.

    The lower part returns from `split` and supervises. The upper part waits for it, hands signals down, and inherits
    every process below: if the supervisor is killed, it ends them and removes their shared memory. If the upper part is
    killed, the kernel sends SIGTERM to the supervisor. In the background there is a third part, which the shell waits
    for, until the supervisor is ready or has ended.

    Args:
        marker: The server's marker.
        log_path: The file for what the parts in the background print; None keeps all in the foreground.

    Raises:
        LycheeServerError: The log cannot be written.
    """

    def __init__(self, marker: str, log_path: Path | None) -> None:
        self._marker = marker
        self._log: int | None = None
        self._log_path = log_path
        self._ready: int | None = None
        if log_path is not None:
            try:
                log_path.parent.mkdir(parents=True, exist_ok=True)
                self._log = os.open(log_path, APPEND, 0o600)
            except OSError as error:
                raise LycheeServerError(
                    f"{log_path} cannot be written ({error.strerror}); make it writable, or choose another folder with "
                    "LYCHEE_STATE_DIR."
                ) from error

    def split(self) -> None:
        """Return in the supervisor alone; the other parts end with the exit code that it has.

        Raises:
            SystemExit: In the part that was there before.
        """
        sys.stdout.flush()
        sys.stderr.flush()
        reader, writer = os.pipe()
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        if self._log is not None:
            if child := os.fork():
                os.close(writer)
                raise SystemExit(_wait_for_ready(child, reader))
            os.setsid()
        guard = os.getpid()
        if child := os.fork():
            os.close(writer)
            code = self._watch_over(child)
            if self._log is not None:
                os._exit(code)
            raise SystemExit(code)
        os.close(reader)
        _prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != guard:
            os._exit(1)
        os.setpgid(0, 0)  # a terminal's Ctrl-C comes once: from above
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        self._ready = writer

    def say_ready(self) -> None:
        """Let the shell go on; what is printed from now on goes into the log."""
        assert self._ready is not None, "call split() first"
        sys.stdout.flush()
        sys.stderr.flush()
        if self._log is not None:
            _redirect(self._log)
        with contextlib.suppress(BrokenPipeError):  # whoever waited was killed
            os.write(self._ready, READY)
        os.close(self._ready)

    def _watch_over(self, supervisor: int) -> int:
        """Wait for the supervisor, and return its exit code when nothing is left of what it started."""
        _prctl(PR_SET_CHILD_SUBREAPER, 1)
        if self._log is not None:
            _redirect(self._log)
        _hand_down(supervisor)
        while True:
            pid, status = os.wait()
            if pid == supervisor:
                break
        code = os.waitstatus_to_exitcode(status)
        if code >= 0:
            return code
        left = psutil.Process().children(recursive=True)  # the kernel has told them
        _, stubborn = psutil.wait_procs(left, timeout=defaults.DEFAULT_STOP_TIMEOUT_S)
        for process in stubborn:
            process.kill()
        psutil.wait_procs(stubborn, timeout=defaults.DEFAULT_STOP_TIMEOUT_S)
        report = stop_processes(self._marker, timeout_s=0)
        if self._log_path is not None:
            rotate_own(self._log_path, (2,), most_bytes())  # the supervisor may have renamed it
        _logger.error(
            "the supervisor ended by signal %d; %d processes ended with it, %d had to be killed, and %d regions of "
            "shared memory were removed",
            -code,
            len(left) - len(stubborn),
            len(stubborn),
            report.shared_memory_regions,
        )
        return 128 - code


def _wait_for_ready(guard: int, reader: int) -> int:
    """Wait until the supervisor is ready, or all has ended. Return the exit code for the shell."""
    _hand_down(guard)
    if os.read(reader, 1) == READY:
        return 0
    _, status = os.waitpid(guard, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _hand_down(child: int) -> None:
    """Send on what is sent to this process."""

    def send(number: int, frame: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)

    for number in SIGNALS:
        signal.signal(number, send)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def _redirect(log: int) -> None:
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    for target in (1, 2):
        os.dup2(log, target)


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value)

"""Ending a server whatever is left of it: its supervisor, if that lives, else its processes one by one."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import Final

import psutil

from lychee_server import defaults, presence, processes, state
from lychee_server.processes import ProcessId, StopReport

__all__ = ["StoppedServer", "clean_up", "stop_everything"]

SUPERVISOR_TIMEOUT_S: Final = defaults.GATEWAY_STOP_TIMEOUT_S + 2 * defaults.DEFAULT_STOP_TIMEOUT_S
POLL_INTERVAL_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class StoppedServer:
    """What was there, and what ending it took.

    Attributes:
        supervised: Whether a supervisor lived.
        pids: The pids of its Tritons; empty where none ran.
        stubs: How many stubs they had, orphans included.
        gateways: The pids of its gateways; more than one only if something went wrong.
        killed: The pids of those that had to be killed.
        regions: How many regions of shared memory had been left.
    """

    supervised: bool
    pids: tuple[int, ...]
    stubs: int
    gateways: tuple[int, ...]
    killed: tuple[int, ...]
    regions: int

    @property
    def found_any(self) -> bool:
        """Whether there was anything to stop."""
        return self.supervised or bool(self.pids) or self.stubs > 0 or bool(self.gateways)


def stop_everything(known: state.ServerState | None) -> StoppedServer:
    """Stop what runs for the state folder: by its supervisor in good order, or by what its marker finds.

    Args:
        known: What `read_state` knows; its loss loses nothing.
    """
    marker = state.own_marker()
    triton = processes.find_processes(marker)
    servers = tuple(process.pid for process in triton if processes.is_server(process))
    gateways = tuple(process.pid for process in processes.find_gateways(marker))
    found = presence.find(marker)
    supervised, killed = found is not None, []
    if found is not None:
        killed += _stop_supervisor(found.pid)
        deadline = time.monotonic() + SUPERVISOR_TIMEOUT_S
        while presence.find(marker) is not None and time.monotonic() < deadline:
            time.sleep(POLL_INTERVAL_S)
    left, report = clean_up(marker)
    return StoppedServer(
        supervised=supervised,
        pids=servers or (tuple(each.pid for each in known.tritons) if supervised and known is not None else ()),
        stubs=len(triton) - len(servers),
        gateways=gateways,
        killed=(*killed, *left, *report.killed),
        regions=report.shared_memory_regions,
    )


def clean_up(marker: str) -> tuple[tuple[int, ...], StopReport]:
    """End what a supervisor that is gone has left. Return the gateways that had to be killed, and the rest."""
    killed = tuple(
        process.pid
        for process in processes.find_gateways(marker)
        if not processes.stop_process(process, timeout_s=defaults.GATEWAY_STOP_TIMEOUT_S)
    )
    return killed, processes.stop_processes(marker, timeout_s=defaults.DEFAULT_STOP_TIMEOUT_S)


def _stop_supervisor(pid: int) -> list[int]:
    """End a supervisor, and thereby all that it started. Return its pid if it had to be killed."""
    try:
        supervisor = ProcessId.of(pid).find()
    except ProcessLookupError:
        return []
    if supervisor is None:
        return []
    with contextlib.suppress(psutil.NoSuchProcess):
        supervisor.resume()  # one that was stopped hears nothing
    return [] if processes.stop_process(supervisor, timeout_s=SUPERVISOR_TIMEOUT_S) else [pid]

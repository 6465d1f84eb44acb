"""The memory of a process as Linux counts it."""

from __future__ import annotations

import contextlib
import ctypes
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["MemoryReading", "read_heap", "read_process", "reset_peak"]

_PROC: Final = Path("/proc")
_RESET_PEAK: Final = "5"  # proc_pid_clear_refs(5)


@dataclass(frozen=True)
class MemoryReading:
    """One process at one moment, in bytes.

    Attributes:
        rss_bytes: Resident memory, with shared pages in full.
        pss_bytes: Resident memory, with shared pages divided among their users; 0 if the kernel does not tell.
        private_bytes: Resident memory that is in no other process.
        file_bytes: Resident memory with a file behind it: programs, libraries, mapped weights.
        peak_bytes: The most that was ever resident, since the start or the last `reset_peak`.
    """

    rss_bytes: int
    pss_bytes: int
    private_bytes: int
    file_bytes: int
    peak_bytes: int


class _Mallinfo2(ctypes.Structure):
    """Source: mallinfo(3), glibc 2.33 and later."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    )


def read_process(pid: int | None = None) -> MemoryReading:
    """Read the memory of a process; without a pid, of this one.

    Raises:
        OSError: The process has ended, or belongs to another user.
    """
    folder = _PROC / ("self" if pid is None else str(pid))
    status = _read_table(folder / "status")
    try:
        rollup = _read_table(folder / "smaps_rollup")
    except PermissionError:
        rollup = {}
    return MemoryReading(
        rss_bytes=status.get("VmRSS", 0),
        pss_bytes=rollup.get("Pss", 0),
        private_bytes=rollup.get("Private_Clean", 0) + rollup.get("Private_Dirty", 0),
        file_bytes=status.get("RssFile", 0),
        peak_bytes=status.get("VmHWM", 0),
    )


def reset_peak(pid: int | None = None) -> None:
    """Let the peak of a process, or of this one, start anew; where that is forbidden, it stays what it was."""
    with contextlib.suppress(OSError):
        (_PROC / ("self" if pid is None else str(pid)) / "clear_refs").write_text(_RESET_PEAK, encoding="ascii")


def read_heap() -> int | None:
    """Return how many bytes malloc has handed out in this process; None where it is not glibc's."""
    mallinfo = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if mallinfo is None:
        return None
    mallinfo.restype = _Mallinfo2
    info = mallinfo()
    return int(info.uordblks + info.hblkhd)


def _read_table(path: Path) -> dict[str, int]:
    """Return the lines that count kilobytes, in bytes."""
    lines = (line.partition(":") for line in path.read_text(encoding="utf-8", errors="replace").splitlines())
    return {name: int(value.split()[0]) * 1024 for name, _, value in lines if value.endswith(" kB")}

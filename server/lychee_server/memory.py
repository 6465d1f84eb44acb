"""Whether there is memory for one more server."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import psutil
from lychee_client.repository import TRITON_BYTES, newest_version, process_bytes

__all__ = ["available_memory_bytes", "estimate_server_bytes"]

CGROUP: Final = Path("/sys/fs/cgroup")


def available_memory_bytes() -> int:
    """Return what programs can still have: of this machine, or of this container if its limit is nearer."""
    available = int(psutil.virtual_memory().available)
    try:
        limit = int((CGROUP / "memory.max").read_text(encoding="ascii"))
        current = int((CGROUP / "memory.current").read_text(encoding="ascii"))
        statistics = (CGROUP / "memory.stat").read_text(encoding="ascii")
    except (OSError, ValueError):  # no container, or "max": one without a limit
        return available
    reclaimable = re.search(r"^inactive_file (\d+)$", statistics, re.MULTILINE)  # file contents, dropped at need
    return min(available, max(0, limit - current + (int(reclaimable[1]) if reclaimable else 0)))


def estimate_server_bytes(repository: Path) -> int:
    """Estimate what a Triton takes that serves a repository, tensors of large batches aside."""
    folders = [newest_version(path.parent) for path in repository.glob("*/config.pbtxt")]
    sizes = [sum(file.stat().st_size for file in folder.iterdir()) for folder in folders if any(folder.glob("*.onnx*"))]
    return TRITON_BYTES + sum(map(process_bytes, sizes))

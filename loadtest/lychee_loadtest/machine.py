"""On which machine a number was measured."""

from __future__ import annotations

import os
import platform
from datetime import date
from pathlib import Path

__all__ = ["describe_machine"]


def describe_machine() -> dict[str, str | int | bool]:
    """Return the CPU's name, the cores this process may use, whether they compute bfloat16, and today's date."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    values = {key.strip(): value.strip() for key, value in fields.items()}
    flags = values.get("flags", "").split()
    return {
        "cpu": values.get("model name") or platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "bfloat16": "avx512_bf16" in flags or "amx_bf16" in flags,
        "system": platform.platform(terse=True),
        "date": date.today().isoformat(),
    }

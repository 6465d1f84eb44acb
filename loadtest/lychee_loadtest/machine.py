"""On which machine a number was measured."""

from __future__ import annotations

import platform
from datetime import date

from lychee_server.execution.onnx_sessions import available_cpus, lacks_bfloat16, read_cpuinfo

__all__ = ["describe_machine"]


def describe_machine() -> dict[str, str | int | bool]:
    """Return the CPU's name, the cores this process may use, whether they compute bfloat16, and today's date."""
    cpuinfo = read_cpuinfo()
    named = (line.partition(":") for line in cpuinfo.splitlines())
    values = {name.strip(): value.strip() for name, _, value in named}
    return {
        "cpu": values.get("model name") or platform.processor(),
        "cores": available_cpus(),
        "bfloat16": not lacks_bfloat16(cpuinfo),
        "system": platform.platform(terse=True),
        "date": date.today().isoformat(),
    }

"""Memory of NVIDIA GPUs, through NVML; optional."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

__all__ = ["DeviceMemory", "process_device_bytes", "read_devices"]


@dataclass(frozen=True)
class DeviceMemory:
    """One GPU: memory in bytes, in all, taken, and by process id."""

    name: str
    total_bytes: int
    used_bytes: int
    by_pid: dict[int, int]


def read_devices() -> tuple[DeviceMemory, ...]:
    """Return the GPUs of this machine; none without a driver or without the package nvidia-ml-py."""
    with _nvml() as nvml:
        if nvml is None:
            return ()
        handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
        return tuple(_read_device(nvml, handle) for handle in handles)


def process_device_bytes(pid: int | None = None) -> int:
    """Return the memory that a process holds on all GPUs; without a pid, this process.

    In a container NVML may know the process by the host's pid only: then this is what all processes hold.
    """
    devices = read_devices()
    own = os.getpid() if pid is None else pid
    known = [device.by_pid[own] for device in devices if own in device.by_pid]
    return sum(known) if known else sum(device.used_bytes for device in devices)


@contextmanager
def _nvml() -> Iterator[Any]:
    """Yield the library, or None if it, or a driver for it, is missing."""
    try:
        import pynvml  # type: ignore[import-untyped]

        pynvml.nvmlInit()
    except Exception:  # ImportError, or NVMLError, which cannot be named without the package
        yield None
        return
    try:
        yield pynvml
    finally:
        pynvml.nvmlShutdown()


def _read_device(nvml: Any, handle: Any) -> DeviceMemory:
    name = nvml.nvmlDeviceGetName(handle)
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    processes = nvml.nvmlDeviceGetComputeRunningProcesses(handle)
    return DeviceMemory(
        name=name.decode() if isinstance(name, bytes) else str(name),
        total_bytes=int(memory.total),
        used_bytes=int(memory.used),
        by_pid={int(entry.pid): int(entry.usedGpuMemory or 0) for entry in processes},
    )

"""Memory of a GPU, against a stand-in for NVML."""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest
from lychee_loadtest.memory.device import process_device_bytes, read_devices


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Stand in for pynvml with one GPU, of which process 7 holds 300 of 500 bytes taken."""
    module = types.SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlShutdown=lambda: None,
        nvmlDeviceGetCount=lambda: 1,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetName=lambda handle: b"NVIDIA A10",
        nvmlDeviceGetMemoryInfo=lambda handle: types.SimpleNamespace(total=1000, used=500),
        nvmlDeviceGetComputeRunningProcesses=lambda handle: [types.SimpleNamespace(pid=7, usedGpuMemory=300)],
    )
    monkeypatch.setitem(sys.modules, "pynvml", module)
    return module


@pytest.mark.usefixtures("nvml")
def test_a_process_is_charged_what_it_holds_and_an_unknown_one_what_all_hold() -> None:
    (device,) = read_devices()
    assert (device.name, device.total_bytes, device.used_bytes, device.by_pid) == ("NVIDIA A10", 1000, 500, {7: 300})
    assert process_device_bytes(7) == 300
    assert process_device_bytes(8) == 500


def test_without_a_driver_there_are_no_devices(nvml: Any) -> None:
    def fail() -> None:
        raise RuntimeError("NVML Shared Library Not Found")

    nvml.nvmlInit = fail
    assert read_devices() == ()
    assert process_device_bytes() == 0


def test_without_the_package_there_are_no_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert read_devices() == ()

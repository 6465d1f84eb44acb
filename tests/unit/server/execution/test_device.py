"""Whether a GPU can be used, and what is said where it cannot."""

from __future__ import annotations

import subprocess
import sys
import types
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from lychee_server.errors import DeviceError
from lychee_server.execution import device, gpu_probe
from lychee_server.execution.child import run_module
from lychee_server.execution.onnx_sessions import UnusableExecutionError

HAS_CUDA = "CUDAExecutionProvider" in ort.get_available_providers()


def test_the_probe_runs_as_a_process_and_tells_what_is_missing() -> None:
    if HAS_CUDA:
        pytest.skip("this ONNX Runtime has CUDA")
    assert device.find_gpu_problem().startswith("this onnxruntime has only ")


def test_the_probes_model_is_a_product_that_a_cpu_gets_right(monkeypatch: pytest.MonkeyPatch) -> None:
    def open_on_cpu(path: Any, execution: str, options: Any) -> Any:
        assert execution == "cuda-fp32"
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(gpu_probe, "open_session", open_on_cpu)
    assert gpu_probe.probe() == ""


def test_a_gpu_that_computes_nonsense_is_not_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = types.SimpleNamespace(run=lambda names, feed: [np.zeros((2, 2), np.float32)])
    monkeypatch.setattr(gpu_probe, "open_session", lambda *arguments: broken)
    assert "computed [[0.0, 0.0], [0.0, 0.0]]" in gpu_probe.probe()


@pytest.mark.parametrize("error", [UnusableExecutionError("left out"), RuntimeError("CUDA failure 100:\n no device")])
def test_what_the_provider_throws_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*arguments: Any) -> None:
        raise error

    monkeypatch.setattr(gpu_probe, "open_session", fail)
    assert gpu_probe.probe() == " ".join(str(error).split())


def test_two_builds_in_one_folder_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device.importlib.metadata, "version", lambda name: "1.24.1")
    assert "onnxruntime-gpu and onnxruntime-openvino are both installed" in device.find_gpu_problem()


def test_a_refusal_says_what_was_seen_what_is_expected_and_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "find_gpu_problem", lambda: "CUDA failure 35: driver too old")
    monkeypatch.setattr(device, "read_gpus", lambda: ["NVIDIA A10"])
    monkeypatch.setattr(device, "installed_builds", lambda: {"onnxruntime-gpu": "1.24.1"})
    with pytest.raises(DeviceError) as caught:
        device.require_gpu("models was exported for GPUs (text_encoder)")
    for part in (
        "models was exported for GPUs (text_encoder), and no GPU can be used here: CUDA failure 35: driver too old.",
        "NVIDIA GPUs seen: NVIDIA A10; installed: onnxruntime-gpu 1.24.1.",
        "Expected an NVIDIA GPU with its driver, and onnxruntime-gpu with CUDA 12 and cuDNN 9.",
        "pip install 'lychee-rerank-server[gpu]'",
        "lychee load --device cpu",
        "lychee export --target cpu",
    ):
        assert part in str(caught.value)


def test_a_usable_gpu_is_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "find_gpu_problem", lambda: "")
    device.require_gpu("somebody")


def test_a_gpu_that_no_build_can_use_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "read_gpus", lambda: ["NVIDIA A10"])
    monkeypatch.setattr(device, "installed_builds", lambda: {"onnxruntime-openvino": "1.24.1"})
    assert "NVIDIA A10 is not used, for onnxruntime-gpu is not installed" in device.unused_gpu()
    monkeypatch.setattr(device, "installed_builds", lambda: {"onnxruntime-gpu": "1.24.1"})
    assert device.unused_gpu() == ""
    monkeypatch.setattr(device, "read_gpus", list)
    assert device.unused_gpu() == ""


@pytest.mark.parametrize(
    ("code", "failure"),
    [
        ("raise OSError('gone')", "looking ended with exit code 1: OSError: gone"),
        ("import os; os.abort()", "looking ended with signal 6: "),
        ("import time; time.sleep(60)", "looking took more than 0.5 s"),
    ],
)
def test_a_process_that_fails_says_how(monkeypatch: pytest.MonkeyPatch, code: str, failure: str) -> None:
    run = subprocess.run

    def run_code(command: list[str], **options: Any) -> Any:
        return run([sys.executable, "-c", code], **options)

    monkeypatch.setattr(subprocess, "run", run_code)
    assert run_module("gpu_probe", "", 0.5 if "sleep" in code else 30, doing="looking") == ("", failure)

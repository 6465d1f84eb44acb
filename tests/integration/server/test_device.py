"""What was exported for GPUs, on a machine without a usable one: refused, or on the CPU if asked; a real Triton."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import tritonclient.grpc as grpc
from lychee_server import ServerStartError, TritonServer
from lychee_server.errors import DeviceError
from lychee_server.execution import serving
from lychee_server.status import read_models

from .conftest import FREE_PORTS, LOOKUP_CONFIG

pytestmark = [
    pytest.mark.triton,
    pytest.mark.skipif(
        "CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="this ONNX Runtime has CUDA"
    ),
]
ON_GPUS = LOOKUP_CONFIG.replace("kind: KIND_CPU", "kind: KIND_GPU gpus: [1, 3]")


@pytest.fixture
def exported(tiny_repository: Path, add_model: Callable[..., Path]) -> Path:
    """Return a repository with a model for GPUs and one for CPUs."""
    add_model("text_encoder", config=ON_GPUS)
    add_model("head")
    return tiny_repository


def test_it_is_refused_before_anything_starts(exported: Path) -> None:
    server = TritonServer(exported, **FREE_PORTS)
    expected = r"was exported for GPUs \(text_encoder\), and no GPU can be used here: this onnxruntime has only"
    with pytest.raises(DeviceError, match=expected):
        server.start()
    assert server.pid is None


def test_lychee_load_says_so_and_leaves_nothing_behind(exported: Path) -> None:
    lychee = str(Path(sys.executable).parent / "lychee")
    ended = subprocess.run(
        [lychee, "load", "--repository", str(exported), "--no-gateway"], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1
    assert "lychee: " in ended.stderr
    assert "NVIDIA GPUs seen: " in ended.stderr
    assert "`lychee load --device cpu`" in ended.stderr
    status = subprocess.run([lychee, "status"], capture_output=True, text=True, check=False)
    assert status.returncode == 3


def test_the_cpu_serves_it_if_that_was_asked_for(exported: Path, tmp_path: Path) -> None:
    with TritonServer(exported, device="cpu", **FREE_PORTS, log_path=tmp_path / "triton.log") as server:
        found = read_models(server.host, server.http_port, server.metrics_port, server.key)
        encoder = next(model for model in found if model.name == "text_encoder")
        assert (encoder.provider, encoder.precision) == ("CPUExecutionProvider", "fp32")
        assert encoder.precision_reason == "--device cpu"
        ids = grpc.InferInput("ids", [1, 3], "INT64")
        ids.set_data_from_numpy(np.array([[1, 2, 3]], np.int64))
        with grpc.InferenceServerClient(server.grpc_url) as client:
            assert client.infer("text_encoder", [ids]).as_numpy("y").tolist() == [[6.0]]


def test_a_gpu_that_goes_between_the_test_and_the_load_fails_the_load(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "require_gpu", lambda asker: None)
    server = TritonServer(exported, **FREE_PORTS, log_path=tmp_path / "triton.log")
    with pytest.raises(ServerStartError) as caught, server:
        pass
    (reason,) = caught.value.model_reasons.values()
    assert "is to run on GPU " in reason
    log = (tmp_path / "triton.log").read_text(encoding="utf-8")
    assert set(re.findall(r"is to run on GPU (\d)", log)) == {"1", "3"}  # one instance on each
    assert "cannot: this onnxruntime has only" in reason
    assert "`lychee load --device cpu` serves it on the CPU" in reason


def test_a_repository_that_leaves_nothing_open_cannot_be_sent_to_a_gpu(tiny_repository: Path) -> None:
    with pytest.raises(DeviceError, match="--device is cuda, and"):
        TritonServer(tiny_repository, device="cuda", **FREE_PORTS).start()

"""What ONNX Runtime is asked for, when a GPU is to execute a model up to the door of a stand-in for its provider."""

from __future__ import annotations

import re
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from lychee_server.execution import onnx_sessions
from lychee_server.execution.onnx_sessions import (
    OPENVINO_PROVIDER,
    UnusableExecutionError,
    available_executions,
    open_session,
)
from onnx import helper, numpy_helper

CUDA = "CUDAExecutionProvider"
CPU = "CPUExecutionProvider"
PRINTED = (
    "Failed to load /site-packages/nvidia/cudnn/lib/libcudnn.so.9: invalid ELF header\n"
    "Failed to load libcublasLt.so.12: libcublasLt.so.12: cannot open shared object file: No such file or directory\n"
    "Please follow the installation page to install CUDA and CuDNN.\n"
)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Stand in for an ONNX Runtime with CUDA; return the options of each session that is opened."""
    sessions: list[dict[str, Any]] = []

    def open_one(path: str, options: Any, *, providers: list[str], provider_options: Any, enable_fallback: int) -> Any:
        assert not enable_fallback
        sessions.append(dict(zip(providers, provider_options, strict=True)))
        return types.SimpleNamespace(get_providers=lambda: [*providers, CPU])

    monkeypatch.setattr(ort, "get_available_providers", lambda: ["TensorrtExecutionProvider", CUDA, CPU])
    monkeypatch.setattr(ort, "preload_dlls", lambda: None)
    monkeypatch.setattr(ort, "InferenceSession", open_one)
    return sessions


@pytest.mark.parametrize(("execution", "tf32"), [("cuda-fp32", "0"), ("cuda-tf32", "1"), ("cuda-fp16", "0")])
def test_tf32_is_off_unless_it_was_chosen(opened: list[dict[str, Any]], execution: str, tf32: str) -> None:
    open_session(Path("model.onnx"), execution, ort.SessionOptions())
    assert opened[0][CUDA]["use_tf32"] == tf32


def test_the_arena_takes_what_is_asked_for_and_no_batch_size_is_benchmarked(opened: list[dict[str, Any]]) -> None:
    open_session(Path("model.onnx"), "cuda-fp32", ort.SessionOptions())
    assert opened[0][CUDA]["arena_extend_strategy"] == "kSameAsRequested"
    assert opened[0][CUDA]["cudnn_conv_algo_search"] == "HEURISTIC"


def test_a_models_own_options_have_precedence_but_for_the_precision(opened: list[dict[str, Any]]) -> None:
    own = {"arena_extend_strategy": "kNextPowerOfTwo", "gpu_mem_limit": "1000", "device_id": "1", "use_tf32": "1"}
    open_session(Path("model.onnx"), "cuda-fp32", ort.SessionOptions(), cuda_options=own)
    assert {key: opened[0][CUDA][key] for key in own} == {**own, "use_tf32": "0"}


def test_a_cpu_gets_no_options_of_the_gpu(opened: list[dict[str, Any]]) -> None:
    open_session(Path("model.onnx"), "cpu-fp32", ort.SessionOptions(), cuda_options={"device_id": "1"})
    assert opened == [{CPU: {}}]


def test_libraries_that_are_missing_are_named_when_the_provider_is_left_out(
    opened: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    cpu_alone = types.SimpleNamespace(get_providers=lambda: [CPU])
    monkeypatch.setattr(ort, "InferenceSession", lambda *arguments, **options: cpu_alone)
    monkeypatch.setattr(ort, "preload_dlls", lambda: print(PRINTED))
    expected = r"kept CPUExecutionProvider; not found or not loadable: libcublasLt\.so\.12, libcudnn\.so\.9$"
    with pytest.raises(UnusableExecutionError, match=expected):
        open_session(Path("model.onnx"), "cuda-fp32", ort.SessionOptions())


def test_a_build_without_cuda_says_what_it_has() -> None:
    if CUDA in ort.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    with pytest.raises(UnusableExecutionError, match=r"this onnxruntime has only .*CPUExecutionProvider"):
        open_session(Path("model.onnx"), "cuda-fp32", ort.SessionOptions())


def test_the_types_of_a_file_are_nothing_to_choose(opened: list[dict[str, Any]]) -> None:
    assert available_executions() == ["cpu-fp32", "cuda-fp32", "cuda-tf32"]


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that makes files as the driver of NVIDIA makes them."""
    monkeypatch.setattr(onnx_sessions, "GPU_INFORMATION", tmp_path / "gpus")
    monkeypatch.setattr(onnx_sessions, "DEVICE_FILES", tmp_path / "dev")

    def make(names: tuple[str, ...], *files: str) -> None:
        (tmp_path / "dev").mkdir()
        for number, name in enumerate(names):
            folder = tmp_path / "gpus" / f"0000:0{number}:00.0"
            folder.mkdir(parents=True)
            (folder / "information").write_text(f"Model: \t\t {name}\nIRQ:   \t\t 7\n", encoding="utf-8")
        for file in files:
            (tmp_path / "dev" / file).touch()

    return make


def test_gpus_have_the_names_that_the_driver_tells(system: Callable[..., None], tmp_path: Path) -> None:
    assert onnx_sessions.read_gpus() == []
    system(("NVIDIA H100 80GB HBM3", "NVIDIA A10"), "nvidia0", "nvidia1", "nvidiactl")
    assert onnx_sessions.read_gpus() == ["NVIDIA H100 80GB HBM3", "NVIDIA A10"]


def test_gpus_without_names_are_seen_by_their_files(system: Callable[..., None], tmp_path: Path) -> None:
    system((), "nvidia0", "nvidiactl", "null")
    assert onnx_sessions.read_gpus() == [str(tmp_path / "dev" / "nvidia0")]


def test_threads_without_work_leave_their_core(tmp_path: Path) -> None:
    shapes = [helper.make_tensor_value_info(name, 1, [1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Abs", ["x"], ["y"])], "g", shapes[:1], shapes[1:])
    path = tmp_path / "model.onnx"
    onnx.save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    session = open_session(path, "cpu-fp32", ort.SessionOptions())
    assert session.get_session_options().get_session_config_entry("session.force_spinning_stop") == "1"


@pytest.mark.skipif(OPENVINO_PROVIDER not in ort.get_available_providers(), reason="this onnxruntime has no OpenVINO")
def test_weights_beside_a_model_that_openvino_has_read_stay_out_of_memory(tmp_path: Path) -> None:
    weights = np.random.default_rng(0).standard_normal((1024, 2048)).astype(np.float32)  # 8 MiB
    shapes = [helper.make_tensor_value_info(name, 1, ["batch_size", size]) for name, size in (("x", 1024), ("y", 2048))]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        shapes[:1],
        shapes[1:],
        [numpy_helper.from_array(weights, "w")],
    )
    path = tmp_path / "model.onnx"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save_model(model, path, save_as_external_data=True, location="model.onnx.data")
    session = open_session(path, "openvino-fp32", ort.SessionOptions())
    maps = Path("/proc/self/smaps").read_text(encoding="utf-8")
    resident = re.findall(rf"{re.escape(str(path))}\.data\n(?:\w+:.*\n)*?Rss: +(\d+) kB", maps)
    assert sum(map(int, resident)) < 1024
    x = np.ones((2, 1024), np.float32)
    np.testing.assert_allclose(session.run(None, {"x": x})[0], x @ weights, atol=1e-2)

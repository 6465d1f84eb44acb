"""A stand-in for Triton's Python side, tiny ONNX models, and folders of our own for cache and state."""

from __future__ import annotations

import importlib.util
import json
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper


class FakeTensor:
    """Holds an array under a name."""

    def __init__(self, name: str, array: np.ndarray) -> None:
        self.tensor_name = name
        self.array = array

    def name(self) -> str:
        return self.tensor_name

    def as_numpy(self) -> np.ndarray:
        return self.array


class FakeError:
    """A message with one of Triton's codes."""

    INTERNAL = 1
    INVALID_ARG = 3

    def __init__(self, message: str, code: int) -> None:
        self.text = message
        self.code = code


@dataclass
class FakeResponse:
    """Output tensors, or an error."""

    output_tensors: list[FakeTensor]
    error: FakeError | None = None

    def arrays(self) -> dict[str, np.ndarray]:
        assert self.error is None, self.error.text
        return {tensor.tensor_name: tensor.array for tensor in self.output_tensors}


@dataclass
class FakeRequest:
    """Input arrays, and which outputs are wanted."""

    inputs: dict[str, np.ndarray]
    outputs: list[str] = field(default_factory=lambda: ["y"])

    def requested_output_names(self) -> list[str]:
        return self.outputs


class FakeModelError(Exception):
    """What a backend raises when a model cannot be loaded."""


class FakeMetricFamily:
    """Remembers what was published."""

    GAUGE = 1
    published: list[dict[str, str]]

    def __init__(self, name: str, description: str, kind: int) -> None:
        self.name = name

    def Metric(self, labels: dict[str, str]) -> Any:  # noqa: N802 - Triton's name
        self.published.append(labels)
        return types.SimpleNamespace(set=lambda value: None)


@pytest.fixture
def pb_utils(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """Stand in for triton_python_backend_utils. `warnings` and `published` hold what the backend told it."""
    module = types.ModuleType("triton_python_backend_utils")
    warnings: list[str] = []
    family = type("Family", (FakeMetricFamily,), {"published": []})
    members = {
        "InferenceResponse": FakeResponse,
        "Logger": types.SimpleNamespace(log_warn=warnings.append, log_info=lambda message: None),
        "MetricFamily": family,
        "Tensor": FakeTensor,
        "TritonError": FakeError,
        "TritonModelException": FakeModelError,
        "get_input_tensor_by_name": lambda request, name: (
            FakeTensor(name, request.inputs[name]) if name in request.inputs else None
        ),
        "published": family.published,
        "warnings": warnings,
    }
    for name, member in members.items():
        setattr(module, name, member)
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", module)
    return module


@pytest.fixture
def backend(root: Path, pb_utils: types.ModuleType, monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """Import the backend's file as Triton's stub does: as a module named model, with its neighbour beside it."""
    monkeypatch.syspath_prepend(root / "server" / "lychee_server" / "execution")
    path = root / "server" / "backends" / "onnxruntime" / "model.py"
    spec = importlib.util.spec_from_file_location("model", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "model", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "follow_parent", lambda: None)  # the parent of the tests is no Triton
    return module


@pytest.fixture
def request_class() -> type[FakeRequest]:
    """Return the class of requests."""
    return FakeRequest


@pytest.fixture
def load_model(backend: types.ModuleType, tmp_path: Path) -> Callable[..., Any]:
    """Return a function that writes a model and its configuration, and initializes the backend with them.

    Its last argument is what else Triton tells an instance.
    """

    def load(
        graph: onnx.GraphProto | bytes | None, config: dict[str, Any], instance_args: dict[str, str] | None = None
    ) -> Any:
        folder = tmp_path / "repository" / "tiny" / "1"
        folder.mkdir(parents=True, exist_ok=True)
        filename = config.get("default_model_filename") or "model.onnx"
        if isinstance(graph, onnx.GraphProto):
            model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
            onnx.save(model, folder / filename)
        elif graph is not None:
            (folder / filename).write_bytes(graph)
        instance = backend.TritonPythonModel()
        instance.initialize(
            {
                "model_config": json.dumps(config),
                "model_name": "tiny",
                "model_repository": str(folder.parent),
                "model_version": "1",
                **(instance_args or {}),
            }
        )
        return instance

    return load


@pytest.fixture
def double_graph() -> onnx.GraphProto:
    """Return y = 2 x for x of shape (batch_size, width)."""
    shape = ["batch_size", "width"]
    return helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["y"])],
        "double",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
    )


@pytest.fixture
def double_config() -> dict[str, Any]:
    """Return the configuration of the doubling model as Triton hands it over."""
    return {
        "name": "tiny",
        "max_batch_size": 8,
        "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [-1]}],
        "output": [{"name": "y", "data_type": "TYPE_FP32", "dims": [-1]}],
        "default_model_filename": "",
        "parameters": {},
        "optimization": {},
    }


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep cache and state of the user out of the tests."""
    monkeypatch.setenv("LYCHEE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("LYCHEE_STATE_DIR", str(tmp_path / "state"))

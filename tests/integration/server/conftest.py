"""A tiny model repository, and one real Triton that serves it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import tritonclient.grpc as grpc
from lychee_server import TritonServer
from onnx import TensorProto, helper, numpy_helper

FREE_PORTS = {"http_port": 0, "grpc_port": 0, "metrics_port": 0}


def write_model(repository: Path, name: str, graph: onnx.GraphProto, config: str) -> None:
    """Write one model with its configuration; the name and the backend are added to the latter."""
    folder = repository / name
    (folder / "1").mkdir(parents=True)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, folder / "1" / "model.onnx")
    (folder / "config.pbtxt").write_text(f'name: "{name}"\nbackend: "onnxruntime"\n{config}', encoding="utf-8")


def make_lookup() -> onnx.GraphProto:
    """Return y = sum of table[ids], for a table of 0, 1, 2, 3."""
    return helper.make_graph(
        [
            helper.make_node("Gather", ["table", "ids"], ["looked_up"]),
            helper.make_node("ReduceSum", ["looked_up", "axes"], ["y"], keepdims=1),
        ],
        "lookup",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch_size", "length"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch_size", 1])],
        [
            numpy_helper.from_array(np.arange(4, dtype=np.float32), "table"),
            numpy_helper.from_array(np.array([1]), "axes"),
        ],
    )


def make_identity(kind: int, shape: list[str | int]) -> onnx.GraphProto:
    """Return y = x."""
    return helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "identity",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", kind, shape)],
    )


def make_constant(text: str) -> onnx.GraphProto:
    """Return a graph without inputs."""
    value = helper.make_tensor("value", TensorProto.STRING, [1], [text.encode()])
    return helper.make_graph(
        [helper.make_node("Constant", [], ["y"], value=value)],
        "constant",
        [],
        [helper.make_tensor_value_info("y", TensorProto.STRING, [1])],
    )


LOOKUP_CONFIG = """
max_batch_size: 8
input { name: "ids" data_type: TYPE_INT64 dims: -1 }
output { name: "y" data_type: TYPE_FP32 dims: 1 }
instance_group { count: 1 kind: KIND_CPU }
dynamic_batching { preferred_batch_size: 8 max_queue_delay_microseconds: 300000 }
"""
ACCELERATED = """
optimization { execution_accelerators { cpu_execution_accelerator {
  name: "openvino" parameters { key: "precision" value: "fp32" } } } }
parameters { key: "maximum.ids" value { string_value: "3" } }
"""


def write_repository(repository: Path) -> None:
    """Write a model for each thing that the backend can do."""
    write_model(repository, "lookup", make_lookup(), LOOKUP_CONFIG)
    write_model(repository, "accelerated", make_lookup(), LOOKUP_CONFIG + ACCELERATED)
    strings = 'input { name: "x" data_type: TYPE_STRING dims: -1 } output { name: "y" data_type: TYPE_STRING dims: -1 }'
    write_model(
        repository,
        "strings",
        make_identity(TensorProto.STRING, ["batch_size", "length"]),
        f"max_batch_size: 4 {strings} instance_group {{ count: 1 kind: KIND_CPU }}",
    )
    write_model(
        repository,
        "unbatched",
        make_identity(TensorProto.STRING, ["length"]),
        f"max_batch_size: 0 {strings} instance_group {{ count: 1 kind: KIND_CPU }}",
    )
    write_model(
        repository,
        "constant",
        make_constant("荔枝" * 100_000),
        'output { name: "y" data_type: TYPE_STRING dims: 1 } instance_group { count: 1 kind: KIND_CPU }',
    )


@pytest.fixture
def tiny_repository(tmp_path: Path) -> Path:
    """Return a repository with one model without inputs, quick to load and free to damage."""
    repository = tmp_path / "repository"
    write_model(
        repository,
        "constant",
        make_constant("荔枝"),
        'output { name: "y" data_type: TYPE_STRING dims: 1 } instance_group { count: 1 kind: KIND_CPU }',
    )
    return repository


@pytest.fixture
def add_model(tiny_repository: Path) -> Callable[..., Path]:
    """Return a function that adds a lookup model with more lines of configuration, and returns its file."""

    def add(name: str, more: str = "", config: str = LOOKUP_CONFIG) -> Path:
        write_model(tiny_repository, name, make_lookup(), config + more)
        return tiny_repository / name / "1" / "model.onnx"

    return add


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """Serve a model for each thing that the backend can do."""
    folder = tmp_path_factory.mktemp("served")
    write_repository(folder / "repository")
    with TritonServer(folder / "repository", **FREE_PORTS, log_path=folder / "triton.log") as server:
        yield server


@pytest.fixture
def client(server: TritonServer) -> Iterator[grpc.InferenceServerClient]:
    """Talk to the server over gRPC, without our own client in between."""
    with grpc.InferenceServerClient(server.grpc_url) as client:
        yield client


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the user's running server out of the tests."""
    monkeypatch.setenv("LYCHEE_STATE_DIR", str(tmp_path / "state"))

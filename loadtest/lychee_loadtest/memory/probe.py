"""One model in a process of its own: load it as Triton's stub does, run batches, note the memory after each step.

Started by `lychee_loadtest.memory.measuring` as `python -m lychee_loadtest.memory.probe`, with the task as JSON on the
standard input; the readings go to the standard output as JSON, ONNX Runtime's log of its arena to the standard error.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from lychee_loadtest.memory import triton_stand_in
from lychee_loadtest.memory.device import process_device_bytes
from lychee_loadtest.memory.process_memory import read_heap, read_process, reset_peak

ATTENTION_MASK: Final = "attention_mask"
GPU_PROVIDER: Final = "CUDAExecutionProvider"
SMALLEST_SIZE: Final = 16
RUNS_PER_BATCH: Final = 2  # ONNX Runtime plans its buffers in the first run of a shape
LOG_INFO: Final = 1
# y = x + x for float32 [b, 1], as an ONNX file of IR version 10 and operator set 18: a model of no size.
EMPTY_MODEL: Final = bytes.fromhex(
    "080a3a3f0a0e0a01780a017812017922034164641201655a140a0178120f0a0d080112090a031201620a02080162140a0179120f0a0d080112"
    "090a031201620a02080142040a001012"
)
_NUMPY_TYPES: Final = {
    "tensor(bool)": "bool",
    "tensor(double)": "float64",
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(uint8)": "uint8",
}


def probe(task: Mapping[str, Any]) -> dict[str, Any]:
    """Load the model, run its batches, and return the readings.

    Args:
        task: `backend`, `config`, `path` of the model file; `gpu`: whether to use one; `axes`: size of each variable
            axis; `batches`: rows of each run, ascending; those that the backend would slice are left out.

    Returns:
        Readings of the steps `imports`, `empty`, `loaded`, `first`, and of each batch; what the backend published; and
        the size of a row.
    """
    triton_stand_in.install()
    backend = _import_backend(Path(task["backend"]))
    import onnxruntime as ort

    ort.set_default_logger_severity(LOG_INFO)  # the arena tells every extension
    on_gpu = bool(task["gpu"]) and GPU_PROVIDER in ort.get_available_providers()
    readings: dict[str, Any] = {"imports": _reading(on_gpu)}
    with _model_of_no_size() as path:
        runner = _open(backend, path, _config_of_no_size(task["config"]), on_gpu)
        runner.run([{"x": runner.zeros({"b": 1})["x"]}])
        readings["empty"] = _reading(on_gpu)
    reset_peak()
    print("loading", file=sys.stderr, flush=True)  # divides the arena's log
    runner = _open(backend, Path(task["path"]), task["config"], on_gpu)
    readings["loaded"] = _reading(on_gpu)
    batches: list[dict[str, int]] = []
    bound, row_bytes = None, 0
    if runner.inputs:
        smallest = {name: min(size, SMALLEST_SIZE) for name, size in task["axes"].items()}
        runner.run([runner.zeros(smallest)])
        readings["first"] = _reading(on_gpu)
        row = runner.zeros(task["axes"])
        bound = rows_per_run(task["config"], {name: array.size for name, array in row.items()})
        row_bytes = sum(array.nbytes for array in row.values())
        for batch in task["batches"]:
            if bound is None or batch <= bound:
                batches.append({"rows": batch, **_run_batch(runner, row, batch, on_gpu)})
    return {
        "readings": readings,
        "execution": runner.execution,
        "batches": batches,
        "rows_per_run": bound,
        "row_bytes": row_bytes,
        "heap_used_bytes": read_heap(),
    }


def rows_per_run(config: Mapping[str, Any], row_elements: Mapping[str, int]) -> int | None:
    """Return after how many rows the backend slices a batch; None without such a bound.

    Args:
        config: The model's configuration, as Triton hands it to a backend.
        row_elements: How many elements a row of each input has.
    """
    parameters = {key: value["string_value"] for key, value in config.get("parameters", {}).items()}
    bound = int(parameters.get("max_run_elements", 0))
    counted = row_elements.get(parameters.get("run_input", ""), max(row_elements.values(), default=0))
    return max(1, bound // counted) if bound and counted else None


class Runner:
    """A loaded model that runs batches."""

    def __init__(self, session: Any, execute: Any, execution: Mapping[str, str], *, batching: bool) -> None:
        """Take the session, None for a constant model, and what answers requests."""
        self.inputs = [] if session is None else session.get_inputs()
        self.execution = dict(execution)
        self._outputs = () if session is None else tuple(node.name for node in session.get_outputs())
        self._execute = execute
        self._batching = batching

    def zeros(self, axes: Mapping[str, int]) -> dict[str, Any]:
        """Return the inputs of one row: zeros, and ones in a mask; the first axis has size 1 with a batch axis.

        An axis that `axes` lacks has size 1.
        """
        import numpy as np

        row = {}
        for node in self.inputs:
            sizes = node.shape[1:] if self._batching else node.shape
            shape = [size if isinstance(size, int) else axes.get(size, 1) for size in sizes]
            fill = np.ones if node.name == ATTENTION_MASK else np.zeros
            row[node.name] = fill([1, *shape] if self._batching else shape, dtype=_NUMPY_TYPES[node.type])
        return row

    def run(self, rows: list[dict[str, Any]]) -> None:
        """Run a batch of one-row requests, as the server merges them."""
        self._execute([triton_stand_in.Request(row, self._outputs) for row in rows])


def _run_batch(runner: Runner, row: dict[str, Any], batch: int, on_gpu: bool) -> dict[str, int]:
    reset_peak()
    for _ in range(RUNS_PER_BATCH):
        runner.run([{name: array.copy() for name, array in row.items()} for _ in range(batch)])
    return _reading(on_gpu)


def _reading(on_gpu: bool) -> dict[str, int]:
    return {**asdict(read_process()), "device_bytes": process_device_bytes() if on_gpu else 0}


def _open(backend: Any, path: Path, config: Mapping[str, Any], on_gpu: bool) -> Runner:
    """Open a model by the backend's own code."""
    batching = int(config.get("max_batch_size", 0)) > 0
    instance = backend.TritonPythonModel()
    instance.initialize(
        {
            "model_config": json.dumps({**config, "default_model_filename": path.name}),
            "model_name": config["name"],
            "model_repository": str(path.parent.parent),
            "model_version": path.parent.name,
            "model_instance_kind": "GPU" if on_gpu else "CPU",
            "model_instance_device_id": "0",
        }
    )

    def execute(requests: list[triton_stand_in.Request]) -> None:
        for response in instance.execute(requests):
            if response.error is not None:
                raise RuntimeError(response.error.message)

    published = triton_stand_in.MetricFamily.published[-1]
    return Runner(instance._session, execute, published, batching=batching)  # private: the backend is Triton's


def _import_backend(path: Path) -> Any:
    server = importlib.util.find_spec("lychee_server")  # found, not imported: a stub does not have it either
    assert server is not None
    assert server.origin is not None
    # In Triton's folder of backends, this neighbour lies beside it.
    sys.path.append(str(Path(server.origin).parent / "execution"))
    spec = importlib.util.spec_from_file_location("model", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["model"] = module  # its dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


@contextmanager
def _model_of_no_size() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="lychee-memory-") as folder:
        path = Path(folder) / "empty" / "1" / "model.onnx"
        path.parent.mkdir(parents=True)
        path.write_bytes(EMPTY_MODEL)
        yield path


def _config_of_no_size(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration for the model of no size that asks for the same accelerator and threads."""
    tensor = {"data_type": "TYPE_FP32", "dims": [1]}
    kept = {key: value for key, value in config.get("parameters", {}).items() if not key.startswith("max")}
    return {
        "name": "empty",
        "max_batch_size": 1,
        "input": [{"name": "x", **tensor}],
        "output": [{"name": "y", **tensor}],
        "optimization": config.get("optimization", {}),
        "parameters": kept,
    }


def main() -> None:
    """Read the task, probe, write the readings."""
    json.dump(probe(json.load(sys.stdin)), sys.stdout)


if __name__ == "__main__":
    main()

"""Serve ONNX models where Triton lacks its C++ `onnxruntime` backend.

Triton takes this file when `backends/onnxruntime/` holds no `libtriton_onnxruntime.so`. So it reads the same keys of
`config.pbtxt` as the C++ backend does, and gives the same kinds of errors. Some parameters are ours, and the C++
backend ignores them: `execution`, a name of `onnx_sessions.EXECUTIONS`, and `execution_reason`, why it was chosen;
`device`, "cuda" where a GPU was asked for, so that nothing may take its place, and `gpus`, the numbers of the GPUs to
which the instances are dealt out; the accelerator's `precision`; `maximum.<name>`, the largest value that an integer
input may hold, or the largest size of an axis; and `max_run_elements`, which bounds memory: a batch whose `run_input`,
or without one its largest input, has more elements runs in slices.
Source: https://github.com/triton-inference-server/onnxruntime_backend/blob/r24.10/README.md
"""

import json
import math
import os
import re
import select
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import triton_python_backend_utils as pb_utils
from onnx_sessions import (
    BFLOAT16_CPU_FLAGS,
    CUDA_PROVIDER,
    EXECUTIONS,
    OPENVINO_PROVIDER,
    PLAIN_CPU,
    UNCHOSEN,
    available_cpus,
    lacks_bfloat16,
    one_line,
    open_session,
    read_cpuinfo,
    read_gpus,
)
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

Array = npt.NDArray[Any]

SHARED_MEMORY = Path("/dev/shm")
DEFAULT_MODEL_FILENAME = "model.onnx"
DEFAULT_PRECISION = "bf16"
HALF_INFINITY, HALF_SIGN = 0x7C00, 0x8000  # bits of a half float
ATTENTION_MASK = "attention_mask"  # 1 for the tokens that count
ONNX_TYPES = {
    "TYPE_BOOL": "tensor(bool)",
    "TYPE_UINT8": "tensor(uint8)",
    "TYPE_UINT16": "tensor(uint16)",
    "TYPE_UINT32": "tensor(uint32)",
    "TYPE_UINT64": "tensor(uint64)",
    "TYPE_INT8": "tensor(int8)",
    "TYPE_INT16": "tensor(int16)",
    "TYPE_INT32": "tensor(int32)",
    "TYPE_INT64": "tensor(int64)",
    "TYPE_FP16": "tensor(float16)",
    "TYPE_FP32": "tensor(float)",
    "TYPE_FP64": "tensor(double)",
    "TYPE_STRING": "tensor(string)",
}
# What the C++ backend takes as a number, by the names that ONNX Runtime's Python module wants, in the order of numbers.
CUDA_CHOICES = {
    "arena_extend_strategy": ("kNextPowerOfTwo", "kSameAsRequested"),
    "cudnn_conv_algo_search": ("EXHAUSTIVE", "HEURISTIC", "DEFAULT"),
    "do_copy_in_default_stream": ("0", "1"),
}
SWITCHES = {"true": True, "on": True, "1": True, "false": False, "off": False, "0": False}
GRAPH_LEVELS = {
    -1: ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    0: ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
    1: ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    2: ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
}


class BadRequestError(Exception):
    """One request cannot be answered, and its sender is at fault."""


class BadOutputError(Exception):
    """The model computed something that may not be passed on."""


@dataclass(frozen=True)
class Settings:
    """What `config.pbtxt` says about the session. 0 threads: all CPUs of this process; 0 elements: no bound."""

    intra_op_threads: int
    inter_op_threads: int
    execution_mode: int
    mem_arena: bool
    mem_pattern: bool
    graph_level: int
    execution: str
    execution_reason: str
    max_run_elements: int
    run_input: str
    maxima: Mapping[str, int]
    cuda_options: Mapping[str, str]
    gpus: Sequence[int]
    gpu_required: bool

    @classmethod
    def from_config(cls, config: Mapping[str, Any], *, on_gpu: bool = False) -> "Settings":
        """Read the settings of one model.

        Args:
            config: What Triton hands over.
            on_gpu: Whether Triton made the instance for a GPU: its group is KIND_GPU.

        Raises:
            TritonModelException: A value is out of range, or an accelerator is unknown.
        """
        parameters = {key: value["string_value"] for key, value in config.get("parameters", {}).items()}
        optimization = config.get("optimization", {})
        level = int(optimization.get("graph", {}).get("level", 0))
        if level not in GRAPH_LEVELS:
            raise pb_utils.TritonModelException(
                f"optimization.graph.level is {level}; expected one of {', '.join(map(str, sorted(GRAPH_LEVELS)))}."
            )
        prefix = "maximum."
        return cls(
            intra_op_threads=_integer(parameters, "intra_op_thread_count", default=0),
            inter_op_threads=_integer(parameters, "inter_op_thread_count", default=0),
            execution_mode=_integer(parameters, "execution_mode", default=0, largest=1),
            mem_arena=_boolean(parameters, "enable_mem_arena"),
            mem_pattern=_boolean(parameters, "enable_mem_pattern"),
            graph_level=level,
            execution=_execution(parameters, optimization.get("execution_accelerators", {}), on_gpu=on_gpu),
            execution_reason=parameters.get("execution_reason", ""),
            max_run_elements=_integer(parameters, "max_run_elements", default=0),
            run_input=parameters.get("run_input", ""),
            maxima={key[len(prefix) :]: _integer(parameters, key) for key in parameters if key.startswith(prefix)},
            cuda_options=_cuda_options(parameters),
            gpus=[int(number) for number in parameters.get("gpus", "0").split(",")],
            gpu_required=on_gpu or parameters.get("device") == "cuda",
        )

    def session_options(self) -> ort.SessionOptions:
        """Return ONNX Runtime's options, thread counts filled in."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = self.intra_op_threads or available_cpus()
        options.inter_op_num_threads = self.inter_op_threads or available_cpus()
        options.execution_mode = (
            ort.ExecutionMode.ORT_PARALLEL if self.execution_mode == 1 else ort.ExecutionMode.ORT_SEQUENTIAL
        )
        options.enable_cpu_mem_arena = self.mem_arena
        options.enable_mem_pattern = self.mem_pattern
        options.graph_optimization_level = GRAPH_LEVELS[self.graph_level]
        options.log_severity_level = 3
        return options


@dataclass
class Job:
    """One request on its way through the backend."""

    feed: dict[str, Array]
    rows: int
    output_names: list[str]
    response: Any = None


def open_model(path: Path, settings: Settings, gpu: int = 0) -> tuple[ort.InferenceSession, str, str]:
    """Open the model file as `config.pbtxt` asks for, else with the plain CPU provider.

    Args:
        path: The model file.
        settings: What `config.pbtxt` asks for.
        gpu: The number of the GPU, if it asks for one.

    Returns:
        The session, what executes it (a name of EXECUTIONS), and the reason for that; empty if there is none to tell.

    Raises:
        TritonModelException: ONNX Runtime cannot read the file, or a GPU was asked for and cannot be had.
    """
    execution, reason = settings.execution, settings.execution_reason
    asked = EXECUTIONS[execution]
    if asked.provider == OPENVINO_PROVIDER and asked.precision == "bf16" and lacks_bfloat16(read_cpuinfo()):
        execution = execution.replace("bf16", "fp32")
        reason = f"the CPU has none of {', '.join(sorted(BFLOAT16_CPU_FLAGS))}"
        pb_utils.Logger.log_warn(f"{path}: running in fp32 instead of bf16, because {reason}")
    if execution != PLAIN_CPU:
        cache_dir = os.environ.get("LYCHEE_CACHE_DIR")
        compiled = str(Path(cache_dir) / "openvino") if cache_dir else None
        cuda_options = {**settings.cuda_options, "device_id": str(gpu)}
        try:
            session = open_session(path, execution, settings.session_options(), compiled, cuda_options)
            return session, execution, reason
        except Exception as error:  # whatever the provider throws, the plain one can still serve
            if asked.provider == CUDA_PROVIDER and settings.gpu_required:
                raise pb_utils.TritonModelException(
                    f"{path} is to run on GPU {gpu} and cannot: {one_line(error)}. NVIDIA GPUs seen: "
                    f"{', '.join(read_gpus()) or 'none'}. Expected one with a driver, free memory for the model, and "
                    "onnxruntime-gpu with CUDA and cuDNN: pip install 'lychee-rerank-server[gpu]'. "
                    "`lychee load --device cpu` serves it on the CPU."
                ) from error
            reason = f"{EXECUTIONS[execution].provider} is not usable: {one_line(error)}"
            pb_utils.Logger.log_warn(f"{path}: running on {EXECUTIONS[PLAIN_CPU].provider} in fp32, because {reason}")
    try:
        return open_session(path, PLAIN_CPU, settings.session_options()), PLAIN_CPU, reason
    except Exception as error:  # onnxruntime's own exceptions share no base class
        if type(error).__name__ == "NotImplemented":
            raise pb_utils.TritonModelException(
                f"{path}: ONNX Runtime {ort.__version__} has no kernel for it on a CPU: {one_line(error)}. A model in "
                "bf16 needs a GPU; for a CPU run `lychee export` again with --precision fp32"
            ) from error
        raise pb_utils.TritonModelException(
            f"{path} ({path.stat().st_size} bytes) is not a model that ONNX Runtime {ort.__version__} can load: "
            f"{one_line(error)}. Expected a complete ONNX file; run `lychee export` to write it again."
        ) from error


def _integer(parameters: Mapping[str, str], key: str, *, default: int | None = None, largest: int | None = None) -> int:
    text = parameters.get(key, str(default))
    if not text.isascii() or not text.isdigit() or (largest is not None and int(text) > largest):
        upper = "" if largest is None else f" to {largest}"
        raise pb_utils.TritonModelException(
            f"parameter {key} is {text!r}; expected a whole number from 0{upper}. Correct it in config.pbtxt."
        )
    return int(text)


def _boolean(parameters: Mapping[str, str], key: str) -> bool:
    """Read a switch, on where it is absent, by the words of the C++ backend's ParseBoolValue."""
    text = parameters.get(key, "1")
    if text.lower() not in SWITCHES:
        raise pb_utils.TritonModelException(
            f"parameter {key} is {text!r}; expected {', '.join(SWITCHES)}. Correct it in config.pbtxt."
        )
    return SWITCHES[text.lower()]


def _cuda_options(parameters: Mapping[str, str]) -> dict[str, str]:
    """Return what the parameters say of the CUDA provider, by its own names."""
    options = {
        key: names[_integer(parameters, key, largest=len(names) - 1)]
        for key, names in CUDA_CHOICES.items()
        if key in parameters
    }
    if limit := _integer(parameters, "gpu_mem_limit", default=0):
        options["gpu_mem_limit"] = str(limit)
    return options


def _execution(parameters: Mapping[str, str], accelerators: Mapping[str, Any], *, on_gpu: bool) -> str:
    """Return the name in EXECUTIONS that the parameter asks for, else the accelerators, else the plain provider."""
    execution = "cuda-fp32" if on_gpu else PLAIN_CPU
    on_gpu = on_gpu or parameters.get("execution", "").startswith("cuda-")
    for accelerator in accelerators.get("gpu_execution_accelerator", []):
        ignored = f"GPU Execution Accelerator '{accelerator['name']}' is ignored"
        if not on_gpu:
            pb_utils.Logger.log_warn(f"{ignored} on a CPU")
        elif accelerator["name"] != "cuda":
            pb_utils.Logger.log_warn(f"{ignored}: CUDA's own kernels run the model, in the types of its file")
    for accelerator in accelerators.get("cpu_execution_accelerator", []):
        if accelerator["name"] != "openvino":
            raise pb_utils.TritonModelException(
                f"unknown Execution Accelerator '{accelerator['name']}' is requested; expected 'openvino'."
            )
        precision = accelerator.get("parameters", {}).get("precision", DEFAULT_PRECISION)
        execution = f"openvino-{precision}"
        if execution not in EXECUTIONS:
            raise pb_utils.TritonModelException(
                f"parameter precision of accelerator openvino is {precision!r}; "
                "expected bf16 or fp32. Correct it in config.pbtxt."
            )
    asked = parameters.get("execution", UNCHOSEN)
    if asked == UNCHOSEN:
        return execution
    if asked not in EXECUTIONS:
        raise pb_utils.TritonModelException(
            f"parameter execution is {asked!r}; expected {UNCHOSEN} or one of {', '.join(EXECUTIONS)}. Correct it in "
            "config.pbtxt."
        )
    return str(asked)


def _pick_gpu(args: Mapping[str, str], settings: Settings, *, on_gpu: bool) -> int:
    """Return the number of an instance's GPU: Triton's, or by turns, the name of an instance ends with its number."""
    if on_gpu:
        return int(args["model_instance_device_id"])
    number = re.search(r"\d+$", args.get("model_instance_name", ""))
    return settings.gpus[int(number[0]) % len(settings.gpus) if number else 0]


def check_signature(path: Path, session: ort.InferenceSession, config: Mapping[str, Any]) -> None:
    """Compare the inputs and outputs of `config.pbtxt` with those of the model file.

    Raises:
        TritonModelException: Names, types or dimensions differ, or a batch axis has a fixed size.
    """
    batching = int(config.get("max_batch_size", 0)) > 0
    problems: list[str] = []
    for kind, nodes in (("input", session.get_inputs()), ("output", session.get_outputs())):
        declared = {entry["name"]: entry for entry in config.get(kind, [])}
        actual = {node.name: node for node in nodes}
        if declared.keys() != actual.keys():
            problems.append(f"{kind}s are {sorted(actual)}, config.pbtxt has {sorted(declared)}")
            continue
        for name, node in actual.items():
            expected_type = ONNX_TYPES.get(declared[name]["data_type"])
            if node.type != expected_type:
                problems.append(f"{kind} {name} is {node.type}, config.pbtxt has {declared[name]['data_type']}")
            expected = [int(dim) for dim in declared[name]["dims"]]
            expected = [-1, *expected] if batching else expected
            seen = [dim if isinstance(dim, int) else -1 for dim in node.shape]
            same = len(seen) == len(expected) and all(a in (b, -1) for a, b in zip(seen, expected, strict=True))
            if not same:
                batch = " (the batch axis first)" if batching else ""
                problems.append(f"{kind} {name} has shape {node.shape}, config.pbtxt has {expected}{batch}")
    if batching and not session.get_inputs():
        problems.append("the model has no inputs, so config.pbtxt needs max_batch_size 0")
    if problems:
        raise pb_utils.TritonModelException(
            f"{path} does not fit config.pbtxt: {'; '.join(problems)}. Run `lychee export` to write both again."
        )


def follow_parent() -> None:
    """End this process when Triton, its parent, ends: at once, even amid a long batch; and leave no shared memory.

    The stub's own look at its parent waits for the batch, and leaves the regions to nobody. Its third argument names
    its region, `<prefix>_<random UUID>`; those of its siblings have the same prefix.
    """
    try:
        parent = os.pidfd_open(os.getppid())
        arguments = Path("/proc/self/cmdline").read_text(encoding="utf-8").split("\0")
    except OSError:  # an old kernel, or Triton is gone already
        return
    regions = [match[1] for part in arguments if (match := re.fullmatch(r"/?(.+)[0-9a-f-]{36}", part))]

    def wait() -> None:
        select.select([parent], [], [])
        for path in (path for prefix in regions for path in SHARED_MEMORY.glob(f"{prefix}*")):
            path.unlink(missing_ok=True)
        os._exit(1)

    threading.Thread(target=wait, name="follow-parent", daemon=True).start()


class TritonPythonModel:
    """One instance of one model. Triton calls its three methods, never two at a time."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Open the model file and check it against `config.pbtxt`.

        Raises:
            TritonModelException: The file is missing or damaged, or the configuration does not fit it.
        """
        follow_parent()
        config = json.loads(args["model_config"])
        filename = config.get("default_model_filename") or DEFAULT_MODEL_FILENAME
        path = Path(args["model_repository"]) / args["model_version"] / filename
        if not path.is_file():
            raise pb_utils.TritonModelException(f"{path} is missing. Run `lychee export` to write it.")
        on_gpu = args.get("model_instance_kind") == "GPU"
        settings = Settings.from_config(config, on_gpu=on_gpu)
        session, execution, reason = open_model(path, settings, _pick_gpu(args, settings, on_gpu=on_gpu))
        check_signature(path, session, config)
        self._batching = int(config.get("max_batch_size", 0)) > 0
        self._maxima = settings.maxima
        self._max_run_elements = settings.max_run_elements
        self._run_input = settings.run_input
        self._inputs = {node.name: node for node in session.get_inputs()}
        if self._run_input and self._run_input not in self._inputs:
            raise pb_utils.TritonModelException(
                f"parameter run_input is {self._run_input!r}; expected an input of the model: {sorted(self._inputs)}."
            )
        axes = {dim for node in self._inputs.values() for dim in node.shape if isinstance(dim, str)}
        unknown = sorted(settings.maxima.keys() - self._inputs.keys() - axes)
        if unknown:
            raise pb_utils.TritonModelException(
                f"parameter maximum.{unknown[0]} names no input and no axis; "
                f"expected one of {sorted({*self._inputs, *axes})}."
            )
        self._output_names = [node.name for node in session.get_outputs()]
        self._session = session
        # Without inputs the answer never changes: compute it once, and let go of the session.
        self._constants: dict[str, Array] | None = None
        if not self._inputs:
            self._constants = self._run({}, self._output_names)
            self._session = None
        self._publish(args, execution, reason)
        pb_utils.Logger.log_info(
            f"{args['model_name']}: {path} runs on {execution} "
            f"with {settings.intra_op_threads or available_cpus()} thread(s)"
        )

    def _publish(self, args: Mapping[str, str], execution: str, reason: str) -> None:
        """Put what really runs among Triton's metrics, where `lychee status` reads it."""
        labels = {
            "model": args["model_name"],
            "version": args["model_version"],
            "provider": EXECUTIONS[execution].provider,
            "precision": EXECUTIONS[execution].precision,
            "reason": reason,
        }
        try:
            self._metric_family = pb_utils.MetricFamily(
                name="lychee_model_execution",
                description="What runs a model: 1 for each loaded model version",
                kind=pb_utils.MetricFamily.GAUGE,
            )
            self._metric = self._metric_family.Metric(labels=labels)
            self._metric.set(1)
        except pb_utils.TritonModelException as error:  # the server runs without metrics
            pb_utils.Logger.log_warn(f"{args['model_name']}: its execution is not published: {error}")

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer the requests of one batch, each with its outputs or its own error."""
        jobs = [self._read(request) for request in requests]
        by_shape: dict[Any, list[Job]] = {}
        for job in jobs:
            by_shape.setdefault(tuple((name, array.shape[1:]) for name, array in job.feed.items()), []).append(job)
        for alike in by_shape.values():
            self._answer(alike)
        return [job.response for job in jobs]

    def _answer(self, jobs: Sequence[Job]) -> None:
        """Answer requests of one shape, together if they are all good."""
        if not self._run_together(jobs):
            good = [job for job in jobs if self._is_good(job)]
            if len(good) == len(jobs) or not self._run_together(good):
                for job in good:
                    self._run_alone(job)

    def _read(self, request: Any) -> Job:
        feed = {}
        for name in self._inputs:
            tensor = pb_utils.get_input_tensor_by_name(request, name)
            if tensor is not None:
                feed[name] = tensor.as_numpy()
        rows = len(next(iter(feed.values()))) if feed and self._batching else 1
        return Job(feed, rows, request.requested_output_names())

    def _is_good(self, job: Job) -> bool:
        """Check a request; one that is bad is answered."""
        try:
            self._check(job.feed)
        except BadRequestError as error:
            job.response = _error(str(error), pb_utils.TritonError.INVALID_ARG)
        return job.response is None

    def _check(self, feed: dict[str, Array]) -> None:
        """Check what Triton does not; decode strings.

        Raises:
            BadRequestError: An input is missing, not finite, out of range, or does not fit another one.
        """
        axes: dict[str, tuple[int, str]] = {}
        for name, node in self._inputs.items():
            if name not in feed:
                raise BadRequestError(f"input {name} is missing; expected {', '.join(self._inputs)}.")
            array = feed[name]
            for dim, symbol in zip(array.shape, node.shape, strict=False):
                if isinstance(symbol, str):
                    size, owner = axes.setdefault(symbol, (dim, name))
                    if size != dim:
                        raise BadRequestError(
                            f"{symbol} is {size} in input {owner} and {dim} in input {name}; expected the same size."
                        )
                    if dim > self._maxima.get(symbol, dim):
                        raise BadRequestError(
                            f"{symbol} is {dim} in input {name}; expected at most {self._maxima[symbol]}."
                        )
            if array.dtype.kind == "f" and not self._is_finite(array):
                raise BadRequestError(f"input {name} has NaN or infinite values; expected finite numbers.")
            if array.dtype.kind == "O":
                feed[name] = _decode(name, array)
            if name == ATTENTION_MASK and not array.any(axis=-1).all():
                raise BadRequestError(f"input {name} has a row of zeros; expected at least one token in every row.")
            if name in self._maxima and array.size:
                low, high = int(array.min()), int(array.max())
                if low < 0 or high > self._maxima[name]:
                    raise BadRequestError(
                        f"input {name} has values from {low} to {high}; expected 0 to {self._maxima[name]}."
                    )

    def _is_finite(self, array: Array) -> bool:
        """Say whether all numbers are finite, but for rows that an earlier model of the ensemble has lost."""
        if _is_surely_finite(array):
            return True
        if self._batching and np.isnan(array).any():
            array = array[~_find_lost(array)]
        return bool(np.isfinite(array).all())

    def _run_together(self, jobs: Sequence[Job]) -> bool:
        """Check and run all the jobs as one batch. Return False, and answer none, if that fails."""
        if len(jobs) < 2 or not self._batching:
            return False
        if any(len(array) != job.rows for job in jobs for array in job.feed.values()):
            return False
        wanted = {name for job in jobs for name in job.output_names}
        try:
            feed = {name: np.concatenate([job.feed[name] for job in jobs]) for name in self._inputs}
            self._check(feed)
            outputs = self._run(feed, [name for name in self._output_names if name in wanted])
        except Exception:  # one of them is bad: alone, each gets its own error
            return False
        rows = sum(job.rows for job in jobs)
        if any(len(array) != rows for array in outputs.values()):
            return False
        start = 0
        for job in jobs:
            job.response = _respond(
                {name: outputs[name][start : start + job.rows] for name in job.output_names},
            )
            start += job.rows
        return True

    def _run_alone(self, job: Job) -> None:
        try:
            outputs = self._run(job.feed, job.output_names)
            if self._batching and any(len(array) != job.rows for array in outputs.values()):
                shapes = {name: array.shape for name, array in outputs.items()}
                raise BadOutputError(f"outputs have shapes {shapes}; expected {job.rows} on the first axis.")
        except Exception as error:  # onnxruntime's own exceptions share no base class
            invalid = isinstance(error, InvalidArgument)
            code = pb_utils.TritonError.INVALID_ARG if invalid else pb_utils.TritonError.INTERNAL
            job.response = _error(f"onnxruntime: {error}", code)
        else:
            job.response = _respond(outputs)

    def _run(self, feed: Mapping[str, Array], names: Sequence[str]) -> dict[str, Array]:
        if self._constants is not None:
            return {name: self._constants[name] for name in names}
        slices = [self._session.run(list(names), part) for part in self._slice(feed)] if names else []
        arrays = slices[0] if len(slices) == 1 else [np.concatenate(parts) for parts in zip(*slices, strict=True)]
        if self._batching:
            _lose_rows(feed, arrays)
        return {name: _encode(array) for name, array in zip(names, arrays, strict=True)}

    def _slice(self, feed: Mapping[str, Array]) -> list[Mapping[str, Array]]:
        """Cut a large batch along its first axis: activations take memory in proportion, and never give it back."""
        counted = [feed[self._run_input]] if self._run_input else feed.values()
        elements = max((array.size for array in counted), default=0)
        if not self._batching or not self._max_run_elements or elements <= self._max_run_elements:
            return [feed]
        rows = len(next(iter(feed.values())))
        step = max(1, self._max_run_elements * rows // elements)
        return [{name: array[i : i + step] for name, array in feed.items()} for i in range(0, rows, step)]


def _is_surely_finite(array: Array) -> bool:
    """Return True if all numbers are finite. It is quick, and False may be wrong: the sum of squares may overflow.

    Half floats, for which numpy has no fast arithmetic, are compared as the integers of their bits: those of infinity
    and NaN are the largest, of numbers above 0 among signed ones, of those below among unsigned ones.
    """
    if array.dtype == np.float16:
        array = np.ascontiguousarray(array)
        above, below = array.view(np.int16).max(initial=0), array.view(np.uint16).max(initial=0)
        return bool(above < HALF_INFINITY and below < HALF_SIGN + HALF_INFINITY)
    return math.isfinite(np.vdot(array, array))


def _find_lost(array: Array) -> Array:
    """Return which rows are NaN throughout; bool, (batch_size,)."""
    nan, axes = np.isnan(array), tuple(range(1, array.ndim))
    lost: Array = nan.any(axis=axes) & nan.all(axis=axes)
    return lost


def _lose_rows(feed: Mapping[str, Array], outputs: Sequence[Array]) -> None:
    """Write NaN throughout the outputs of each row that has a number that is not finite, or was lost before.

    So each row stands for itself, as with the C++ backend, and none looks good again: ReLU makes 0 of NaN.
    """
    rows = len(next(iter(feed.values())))
    floats = [array for array in outputs if array.dtype.kind == "f" and len(array) == rows]
    read = [array for array in feed.values() if array.dtype.kind == "f"]
    if all(map(_is_surely_finite, [*read, *floats])):
        return
    lost = np.zeros(rows, bool)
    for array in read:
        lost |= _find_lost(array)
    for array in floats:
        lost |= ~np.isfinite(array).all(axis=tuple(range(1, array.ndim)))
    if lost.any():
        for array in floats:
            array[lost] = np.nan


def _respond(outputs: Mapping[str, Array]) -> Any:
    return pb_utils.InferenceResponse([pb_utils.Tensor(name, array) for name, array in outputs.items()])


def _error(message: str, code: int) -> Any:
    return pb_utils.InferenceResponse(output_tensors=[], error=pb_utils.TritonError(message, code))


def _decode(name: str, array: Array) -> Array:
    """Turn bytes into str, as ONNX Runtime wants strings."""
    try:
        texts = [item.decode("utf-8") if isinstance(item, bytes) else str(item) for item in array.ravel()]
    except UnicodeDecodeError as error:
        raise BadRequestError(f"input {name} is not UTF-8: {error}.") from error
    return np.array(texts, dtype=np.object_).reshape(array.shape)


def _encode(array: Array) -> Array:
    """Turn str into bytes, as Triton wants strings. Other types pass as they are."""
    if array.dtype.kind not in "OU":
        return array
    texts = [str(item).encode("utf-8") for item in array.ravel()]
    return np.array(texts, dtype=np.object_).reshape(array.shape)

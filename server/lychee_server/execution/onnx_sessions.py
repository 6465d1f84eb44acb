"""How an ONNX file is opened: which of ONNX Runtime's providers executes it, in which precision.

This file stands alone: `assemble_backends` puts a copy beside the backend's `model.py`, so that what is measured before
a server starts is what executes in it.
"""

import contextlib
import ctypes
import io
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

CPU_PROVIDER = "CPUExecutionProvider"
CUDA_PROVIDER = "CUDAExecutionProvider"
OPENVINO_PROVIDER = "OpenVINOExecutionProvider"
ISA_VARIABLE = "ONEDNN_MAX_CPU_ISA"
BFLOAT16_CPU_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})
OPENVINO_HINTS = {"bf16": "bf16", "fp32": "f32"}  # ours -> OpenVINO's INFERENCE_PRECISION_HINT
CUDA_OPTIONS: Mapping[str, str] = {
    "arena_extend_strategy": "kSameAsRequested",  # by default the arena doubles what it takes
    "cudnn_conv_algo_search": "HEURISTIC",  # by default every new batch size is benchmarked first
}
"""Options of the CUDA provider, unless a model's configuration has others.
Source: https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html"""
GPU_INFORMATION = Path("/proc/driver/nvidia/gpus")
DEVICE_FILES = Path("/dev")
MADV_DONTNEED = 4


@dataclass(frozen=True)
class Execution:
    """What executes a model: one of ONNX Runtime's providers, and the precision in which it computes."""

    provider: str
    precision: Literal["fp32", "tf32", "bf16", "fp16"]


UNCHOSEN = "auto"  # what an export writes; `lychee load` replaces it by what it has measured to be best
PLAIN_CPU = "cpu-fp32"
EXECUTIONS: Mapping[str, Execution] = {
    PLAIN_CPU: Execution(CPU_PROVIDER, "fp32"),
    "openvino-bf16": Execution(OPENVINO_PROVIDER, "bf16"),
    "openvino-fp32": Execution(OPENVINO_PROVIDER, "fp32"),
    "cuda-fp32": Execution(CUDA_PROVIDER, "fp32"),
    "cuda-tf32": Execution(CUDA_PROVIDER, "tf32"),
    "cuda-fp16": Execution(CUDA_PROVIDER, "fp16"),
    "cuda-bf16": Execution(CUDA_PROVIDER, "bf16"),
}
"""Executions by the name in the parameter `execution` of `config.pbtxt`; the most exact and most common one first."""
AS_EXPORTED = frozenset({"cuda-fp16", "cuda-bf16"})
"""Those whose precision is that of the file, and nothing to choose: CUDA computes half floats as half floats."""


class UnusableExecutionError(Exception):
    """The machine, or this build of ONNX Runtime, cannot execute a model in the way that was asked for."""


def available_cpus() -> int:
    """Return how many CPUs this process may use."""
    return len(os.sched_getaffinity(0))


def read_cpuinfo() -> str:
    """Return what Linux says about the CPUs; empty on other systems."""
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="utf-8") if path.exists() else ""


def lacks_bfloat16(cpuinfo: str) -> bool:
    """Tell whether OpenVINO computes bfloat16 only by emulation, or not at all, on the CPU of `/proc/cpuinfo`.

    The variable ONEDNN_MAX_CPU_ISA hides instructions from OpenVINO.
    Source: https://uxlfoundation.github.io/oneDNN/dev_guide_cpu_dispatcher_control.html
    """
    limit = os.environ.get(ISA_VARIABLE, "").upper()
    hidden = bool(limit) and not any(word in limit for word in ("BF16", "AMX", "FP16", "DEFAULT", "ALL"))
    return hidden or BFLOAT16_CPU_FLAGS.isdisjoint(cpuinfo.split())


def available_executions() -> list[str]:
    """Name the executions that this machine and this build of ONNX Runtime have, in the order of EXECUTIONS."""
    import onnxruntime as ort  # a gateway alone does without

    providers = set(ort.get_available_providers())
    no_bfloat16 = lacks_bfloat16(read_cpuinfo())
    return [
        name
        for name, execution in EXECUTIONS.items()
        if execution.provider in providers
        and name not in AS_EXPORTED
        and not (execution.precision == "bf16" and no_bfloat16)
    ]


def read_gpus() -> list[str]:
    """Name the NVIDIA GPUs that the system shows, without a call to CUDA; empty if there are none."""
    described = (path.read_text(encoding="utf-8") for path in sorted(GPU_INFORMATION.glob("*/information")))
    names = [match[1] for text in described if (match := re.search(r"^Model:\s*(.+)$", text, re.MULTILINE))]
    files = [*DEVICE_FILES.glob("nvidia[0-9]*"), *DEVICE_FILES.glob("dxg")]  # containers may hide the names
    return names or sorted(map(str, files))


def open_session(
    path: Path,
    execution: str,
    options: Any,
    cache_dir: str | None = None,
    cuda_options: Mapping[str, str] | None = None,
) -> Any:
    """Open a model file in one way, and in no other.

    Args:
        path: The ONNX file.
        execution: A name of EXECUTIONS.
        options: ONNX Runtime's SessionOptions; OpenVINO optimizes graphs itself, whatever they say of that.
        cache_dir: The folder for networks that OpenVINO has compiled; None keeps none.
        cuda_options: Options of the CUDA provider that take the place of CUDA_OPTIONS, or come on top.

    Returns:
        ONNX Runtime's InferenceSession.

    Raises:
        UnusableExecutionError: The provider is not there, or ONNX Runtime drops it.
        Exception: Whatever ONNX Runtime raises for a file that it cannot read; its exceptions share no base class.
    """
    import onnxruntime as ort

    provider, precision = EXECUTIONS[execution].provider, EXECUTIONS[execution].precision
    if provider not in ort.get_available_providers():
        raise UnusableExecutionError(f"this onnxruntime has only {', '.join(ort.get_available_providers())}")
    provider_options: dict[str, str] = {}
    missing = ""
    if provider == CUDA_PROVIDER:
        missing = _load_cuda_libraries()
        # TF32 has the mantissa of a half float.
        provider_options = {**CUDA_OPTIONS, **(cuda_options or {}), "use_tf32": str(int(precision == "tf32"))}
    elif provider == OPENVINO_PROVIDER:
        hints = {"INFERENCE_PRECISION_HINT": OPENVINO_HINTS[precision], "PERFORMANCE_HINT": "LATENCY"}
        provider_options = {
            "device_type": "CPU",
            "num_of_threads": str(options.intra_op_num_threads or available_cpus()),
            "load_config": json.dumps({"CPU": hints}),
        }
        if cache_dir is not None:
            provider_options["cache_dir"] = cache_dir  # OpenVINO keys it by model and hints
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # OpenVINO has its own
    # Else a thread that has nothing more to do looks for work for about 20 ms, on a core that others need.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = ort.InferenceSession(
        str(path), options, providers=[provider], provider_options=[provider_options], enable_fallback=0
    )
    if provider not in session.get_providers():  # onnxruntime drops a provider that it cannot load
        raise UnusableExecutionError(f"onnxruntime left it out and kept {', '.join(session.get_providers())}{missing}")
    _release_free_memory(path)
    return session


def _load_cuda_libraries() -> str:
    """Load the libraries of CUDA and cuDNN from their wheels, where the system's loader does not look.

    Returns:
        Which of them are missing, as the end of a sentence; empty if none is. Whether that matters, the provider shows.
    """
    import onnxruntime as ort

    with contextlib.redirect_stdout(io.StringIO()) as printed:  # it prints what it does not find
        ort.preload_dlls()
    missing = sorted(set(re.findall(r"Failed to load (?:\S*/)?(lib\S+?):", printed.getvalue())))
    return f"; not found or not loadable: {', '.join(missing)}" if missing else ""


def one_line(error: Exception) -> str:
    """Return an error's message without its line breaks, and without what is beyond 400 characters."""
    return " ".join(str(error).split())[:400].removesuffix(".")


def _release_free_memory(path: Path) -> None:
    """Give back what opening a model file took: glibc would keep hundreds of megabytes, and so would a mapping of it.

    OpenVINO has its own copy of the weights, but ONNX Runtime keeps the file beside the model mapped. Its pages, of
    which none is written to, come back from the page cache if they are read again.
    """
    system = ctypes.CDLL(None)
    if hasattr(system, "malloc_trim"):
        system.malloc_trim(0)
    maps = Path("/proc/self/smaps")
    if not hasattr(system, "madvise") or not maps.exists():
        return
    mappings = re.finditer(
        rb"^([0-9a-f]+)-([0-9a-f]+) r\S* .*%b\S*\n(?:\w+:.*\n)*?Anonymous: +0 kB"
        % re.escape(os.fsencode(path.resolve())),
        maps.read_bytes(),
        re.MULTILINE,
    )
    for begin, end in ((int(each[1], 16), int(each[2], 16)) for each in mappings):
        system.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), MADV_DONTNEED)

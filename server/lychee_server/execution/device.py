"""The device that executes models: what was asked for, what an export is made for, and whether a GPU can be used."""

import importlib.metadata
from typing import Any, Literal

from tritonclient.grpc import model_config_pb2

from lychee_server.errors import DeviceError
from lychee_server.execution.child import run_module
from lychee_server.execution.onnx_sessions import read_gpus

Device = Literal["auto", "cpu", "cuda"]
"""What an operator asks for. auto: the GPU for what was exported for one, and for the rest what is fastest."""

PROBE_TIMEOUT_S = 120.0  # for a GPU that is newer than the libraries, kernels are compiled first
BUILDS = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino")
"""Distributions that fill the same folder `onnxruntime/`: of two, each has overwritten files of the other."""
CUDA_BUILD = "onnxruntime-gpu"
INSTALL = f"`pip uninstall {' '.join(BUILDS)}`, then `pip install 'lychee-rerank-server[gpu]'`"


def wants_gpu(config: Any) -> bool:
    """Tell whether a model was exported for a GPU, and for our backend."""
    kinds = {group.kind for group in config.instance_group}
    return config.backend == "onnxruntime" and model_config_pb2.ModelInstanceGroup.KIND_GPU in kinds


def installed_builds() -> dict[str, str]:
    """Return the versions of the installed distributions of ONNX Runtime, by name."""
    found = {}
    for name in BUILDS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def has_gpu() -> bool:
    """Tell whether the system shows an NVIDIA GPU."""
    return bool(read_gpus())


def find_gpu_problem() -> str:
    """Say why ONNX Runtime cannot compute on a GPU here, as one phrase; empty if it can. Takes seconds."""
    builds = installed_builds()
    if CUDA_BUILD in builds and len(builds) > 1:
        return f"{' and '.join(builds)} are both installed, and each has overwritten files of the other"
    problem, failure = run_module("gpu_probe", "", PROBE_TIMEOUT_S, doing="trying the GPU")
    return problem or failure


def describe_machine() -> str:
    """Name the GPUs and the builds of ONNX Runtime that are here."""
    builds = " and ".join(f"{name} {version}" for name, version in installed_builds().items())
    return f"NVIDIA GPUs seen: {', '.join(read_gpus()) or 'none'}; installed: {builds or 'no ONNX Runtime'}"


def require_gpu(asker: str) -> None:
    """See that a GPU can be used.

    Args:
        asker: What wants one, as the beginning of a sentence.

    Raises:
        DeviceError: None can be used. The message says what is missing.
    """
    problem = find_gpu_problem()
    if problem:
        raise DeviceError(
            f"{asker}, and no GPU can be used here: {problem}. {describe_machine()}. Expected an NVIDIA GPU with its "
            f"driver, and {CUDA_BUILD} with CUDA 12 and cuDNN 9. With a GPU, run {INSTALL}; without one, serve on the "
            "CPU with `lychee load --device cpu`, or write the models for CPUs with `lychee export --target cpu`."
        )


def unused_gpu() -> str:
    """Say that there is a GPU and no build of ONNX Runtime that could use it; empty otherwise."""
    gpus = read_gpus()
    if not gpus or CUDA_BUILD in installed_builds():
        return ""
    return f"{', '.join(gpus)} is not used, for {CUDA_BUILD} is not installed: run {INSTALL}"

"""Signature to ``config.pbtxt``, through Triton's protobuf schema."""

from __future__ import annotations

from typing import Literal

from google.protobuf import text_format
from lychee_client.manifest import UNCHOSEN
from lychee_client.repository import MODEL_FILENAME
from tritonclient.grpc import model_config_pb2

from lychee_export.contract.signature import Axis, ModelSignature, TensorSpec

__all__ = ["BACKEND", "Device", "config_message", "model_config"]

Device = Literal["auto", "cpu", "openvino", "cuda"]
"""What runs an encoder: the fastest that keeps the scores, chosen where it is served; ONNX Runtime's own CPU kernels,
its OpenVINO accelerator, or a GPU. Where nobody chooses, auto is cpu."""

BACKEND = "onnxruntime"
_ACCELERATOR_PRECISION = "bf16"
"""Asked of the openvino accelerator; our backend computes in float32 on a CPU without bfloat16."""

_SAME_AS_REQUESTED = "1"
"""kSameAsRequested; doubling (0) would reach the bound long before the memory is used."""

_DATA_TYPES = {
    "float16": model_config_pb2.TYPE_FP16,
    "float32": model_config_pb2.TYPE_FP32,
    "int64": model_config_pb2.TYPE_INT64,
    "string": model_config_pb2.TYPE_STRING,
    "uint8": model_config_pb2.TYPE_UINT8,
}


def model_config(signature: ModelSignature, device: Device, gpu_bytes: int | None = None, *, tf32: bool = True) -> str:
    """Write the configuration of one model; see config_message.

    Args:
        signature: The model's tensors and limits.
        device: What runs it, if it is an encoder.
        gpu_bytes: The most GPU memory that it may take. None sets no bound.
        tf32: Whether a GPU may round the factors of float32 products to 10 bits, as ONNX Runtime's default has it.

    Returns:
        The text of a ``config.pbtxt``.
    """
    config = config_message(signature, device, gpu_bytes)
    if not tf32 and signature.encoder and device == "cuda":
        _forbid_tf32(config)
    return str(text_format.MessageToString(config))


def config_message(
    signature: ModelSignature, device: Device, gpu_bytes: int | None = None
) -> model_config_pb2.ModelConfig:
    """Describe one model to Triton.

    Args:
        signature: The model's tensors and limits.
        device: What runs it, if it is an encoder: everything else is little work and runs on a plain CPU.
        gpu_bytes: The most GPU memory that it may take, weights included. None sets no bound.
    """
    config = model_config_pb2.ModelConfig(name=signature.name, max_batch_size=signature.max_batch_size)
    for specs, field in ((signature.inputs, config.input), (signature.outputs, config.output)):
        for spec in specs:
            field.add(name=spec.name, data_type=_DATA_TYPES[spec.dtype], dims=spec.triton_dims)
    if signature.steps:
        _add_steps(config, signature)
    else:
        _add_backend(config, signature, device if signature.encoder else "cpu")
        if device == "cuda" and signature.encoder and gpu_bytes is not None:
            _bound_gpu_memory(config, gpu_bytes)
    return config


def _add_steps(config: model_config_pb2.ModelConfig, signature: ModelSignature) -> None:
    config.platform = "ensemble"
    for model in signature.steps:
        step = config.ensemble_scheduling.step.add(model_name=model.name, model_version=-1)
        step.input_map.update(signature.input_names(model))
        step.output_map.update(signature.output_names(model))


def _add_backend(config: model_config_pb2.ModelConfig, signature: ModelSignature, device: Device) -> None:
    config.backend = BACKEND
    config.default_model_filename = MODEL_FILENAME
    group = model_config_pb2.ModelInstanceGroup
    config.instance_group.add(count=1, kind=group.KIND_GPU if device == "cuda" else group.KIND_CPU)
    if signature.max_batch_size:
        # Nothing inside: with priority levels or a queue policy, Triton 2.51 leaves requests in the queue for 500 ms
        # every few calls although the model is idle. Measured: 3 to 17 of 25 calls with, none of 200 without.
        config.dynamic_batching.SetInParent()
    if not signature.encoder:
        config.parameters["intra_op_thread_count"].string_value = "1"
    if device == "auto":
        config.parameters["execution"].string_value = UNCHOSEN
    if device == "openvino":
        accelerator = config.optimization.execution_accelerators.cpu_execution_accelerator.add(name="openvino")
        accelerator.parameters["precision"] = _ACCELERATOR_PRECISION
    if signature.max_run_elements is not None:
        config.parameters["max_run_elements"].string_value = str(signature.max_run_elements)
    if signature.run_input is not None:
        config.parameters["run_input"].string_value = signature.run_input
    for name, maximum in _maxima(signature.inputs).items():
        config.parameters[f"maximum.{name}"].string_value = str(maximum)


def _bound_gpu_memory(config: model_config_pb2.ModelConfig, gpu_bytes: int) -> None:
    """Bound the arena of ONNX Runtime's CUDA provider, and let it grow by what is asked instead of by doubling.

    As parameters, not as those of an accelerator named cuda: the backend reads that one first and then writes these
    two over it, defaults included.
    Source: https://github.com/triton-inference-server/onnxruntime_backend/blob/r26.03/src/onnxruntime.cc#L835-L862
    """
    config.parameters["gpu_mem_limit"].string_value = str(gpu_bytes)
    config.parameters["arena_extend_strategy"].string_value = _SAME_AS_REQUESTED


def _forbid_tf32(config: model_config_pb2.ModelConfig) -> None:
    """Tell ONNX Runtime's CUDA provider, which the backend hands every parameter of the accelerator "cuda".

    Source: https://github.com/triton-inference-server/onnxruntime_backend/blob/r26.03/src/onnxruntime.cc, line 749;
    https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html#use_tf32
    """
    accelerator = config.optimization.execution_accelerators.gpu_execution_accelerator.add(name="cuda")
    accelerator.parameters["use_tf32"] = "0"


def _maxima(specs: tuple[TensorSpec, ...]) -> dict[str, int]:
    """Return the largest values by input and the largest sizes by axis.

    The backend checks them: OpenVINO takes any id silently where ONNX Runtime refuses, and says nothing that helps
    about a sequence that is too long.
    """
    values = {spec.name: spec.maximum for spec in specs if spec.maximum is not None}
    sizes = {size.name: size.maximum for spec in specs for size in spec.shape if isinstance(size, Axis)}
    return values | sizes

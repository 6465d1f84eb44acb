"""TensorRT: optimization profiles, configurations and the engine builder's script, all derived from the signature.

The variant "tensorrt" serves engines that ``build-tensorrt.sh`` built beforehand. ``config.pbtxt`` itself stays the
plain GPU configuration: an engine fits one GPU type and one TensorRT version, so a server that nobody told otherwise
must not depend on one. ONNX Runtime's own TensorRT accelerator is not offered. Its engines are weakly typed: the
builder chooses what is computed in half floats, softmax and norms included.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import text_format
from lychee_client.repository import BUILD_SCRIPT
from tritonclient.grpc import model_config_pb2

from lychee_export.contract.signature import Axis, ModelSignature, TensorSpec
from lychee_export.errors import CheckpointError
from lychee_export.onnx.quantization import Precision
from lychee_export.repository.triton_config import config_message

__all__ = [
    "BUILD_SCRIPT",
    "PLAN_FILENAME",
    "VARIANT",
    "OptimizationProfile",
    "build_script",
    "builder_arguments",
    "check_precision",
    "profiles",
    "variants",
]

VARIANT = "tensorrt"
"""Its name in ``configs/``, for ``--model-config-name``."""

PLAN_FILENAME = "model.plan"

_PRECISION_FLAGS: Mapping[Precision, tuple[str, ...]] = {
    # The validation allowed fp32 an error of 1e-4; TF32, which TensorRT uses by default, rounds products to 10 bits.
    "fp32": ("--noTF32",),
    "fp16": (),
    "bf16": (),
}
"""What only the precision decides. The script adds that types are those of the ONNX file, in TensorRT's own words."""


@dataclass(frozen=True)
class OptimizationProfile:
    """The range of shapes of one optimization profile, the batch axis included.

    Args:
        minimum: The smallest shape, by input.
        optimum: The shape for which TensorRT chooses its kernels, by input.
        maximum: The largest shape, by input.
    """

    minimum: Mapping[str, tuple[int, ...]]
    optimum: Mapping[str, tuple[int, ...]]
    maximum: Mapping[str, tuple[int, ...]]


def profiles(signature: ModelSignature) -> tuple[OptimizationProfile, ...]:
    """Return the profiles of an engine: one for all shapes, and where sizes vary one for small shapes.

    TensorRT picks kernels for a profile's optimum. With one profile alone, a query of 16 tokens would run on kernels
    for sequences of a thousand. Two are enough: each takes an execution context with activation memory of its own.
    Profile 0 admits every request, so that a configuration that names no profile works; Triton picks the profile whose
    optimum is nearest.

    Every minimum is the smallest size that the axis allows, not the smallest bucket: a text without images comes with
    one row of image embeddings. Every profile admits the whole batch, because the server merges requests of any
    length.

    Source: https://github.com/triton-inference-server/tensorrt_backend/blob/r24.10/src/instance_state.cc,
    GetMostOptimizedProfile.
    """
    axes = {size.name: size for spec in signature.inputs for size in spec.shape if isinstance(size, Axis)}
    upper = {name: axis.buckets[len(axis.buckets) // 2 :] for name, axis in axes.items()}
    lower = {name: axis.buckets[: len(axis.buckets) // 2] or axis.buckets for name, axis in axes.items()}
    groups = [upper] if upper == lower else [upper, lower]
    return tuple(_profile(signature, group) for group in groups)


def variants(signature: ModelSignature, precision: Precision) -> dict[str, str]:
    """Write the TensorRT configuration of a model.

    Returns:
        The text for ``configs/`` by variant; none if the model is no encoder: it costs less than the way to the GPU.

    Raises:
        CheckpointError: TensorRT cannot run the precision.
    """
    check_precision(precision)
    if not signature.encoder:
        return {}
    return {VARIANT: str(text_format.MessageToString(_engine_config(signature)))}


def build_script(signatures: Iterable[ModelSignature], precision: Precision) -> str:
    """Write the script that builds the engines of all encoders.

    It runs in NVIDIA's container of the TensorRT version that serves the engines, on the GPU that serves them.

    Returns:
        The text of a bash script for the repository's root.

    Raises:
        CheckpointError: TensorRT cannot run the precision.
    """
    check_precision(precision)
    template = (Path(__file__).parent / "build-tensorrt.sh").read_text(encoding="utf-8")
    calls = [
        " \\\n    ".join([f"build {signature.name}", *map(shlex.quote, builder_arguments(signature, precision))])
        for signature in signatures
        if signature.encoder
    ]
    return "\n".join([template.rstrip("\n"), *calls, ""])


def builder_arguments(signature: ModelSignature, precision: Precision) -> list[str]:
    """Return the arguments for ``trtexec`` that say how an encoder is built, files aside."""
    arguments = [*_PRECISION_FLAGS[precision], "--skipInference"]
    for number, profile in enumerate(profiles(signature)):
        arguments.append(f"--profile={number}")
        for option, shapes in (
            ("minShapes", profile.minimum),
            ("optShapes", profile.optimum),
            ("maxShapes", profile.maximum),
        ):
            arguments.append(f"--{option}={_write_shapes(shapes)}")
    return arguments


def check_precision(precision: Precision) -> None:
    """Refuse precisions that are made for ONNX Runtime.

    Raises:
        CheckpointError: The precision is w8, w4 or s8.
    """
    if precision not in _PRECISION_FLAGS:
        raise CheckpointError(
            f"precision {precision} does not go with TensorRT: the exporter makes it for ONNX Runtime on "
            f"CPUs; choose {', '.join(_PRECISION_FLAGS)}"
        )


def _profile(signature: ModelSignature, buckets: Mapping[str, tuple[int, ...]]) -> OptimizationProfile:
    middles = {name: sizes[len(sizes) // 2] for name, sizes in buckets.items()}
    batch = signature.max_batch_size

    def shapes(rows: int, sizes: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
        return {spec.name: (rows, *_fill(spec, sizes)) for spec in signature.inputs}

    multiples = {size.name: size.multiple for spec in signature.inputs for size in spec.shape if isinstance(size, Axis)}
    return OptimizationProfile(
        minimum=shapes(1, multiples),
        optimum=shapes((batch + 1) // 2, middles),
        maximum=shapes(batch, {name: sizes[-1] for name, sizes in buckets.items()}),
    )


def _fill(spec: TensorSpec, sizes: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(sizes[size.name] if isinstance(size, Axis) else size for size in spec.shape)


def _write_shapes(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Write shapes as trtexec reads them: ``name:1x16,other:1x16``."""
    return ",".join(f"{name}:{'x'.join(map(str, shape))}" for name, shape in shapes.items())


def _engine_config(signature: ModelSignature) -> model_config_pb2.ModelConfig:
    config = config_message(signature, "cuda")
    config.backend = "tensorrt"
    config.default_model_filename = PLAN_FILENAME
    config.ClearField("parameters")
    config.instance_group[0].profile.extend(str(number) for number in range(len(profiles(signature))))
    return config

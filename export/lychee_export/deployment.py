"""What a repository is made for: which hardware runs its models, and the configurations that say so."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Literal, get_args

from . import tensorrt
from .quantization import Precision
from .runtime import Provider
from .signature import ModelSignature
from .triton_config import Device, model_config

__all__ = ["OWN_VARIANTS", "TARGETS", "Target", "config_files", "providers", "root_files"]

Target = Literal["cpu", "cuda", "tensorrt"]
TARGETS: tuple[Target, ...] = get_args(Target)

_PLAIN_CPU_VARIANT = "cpu"
"""Name in ``configs/`` of the configuration for servers without the accelerator."""
_ACCELERATED_VARIANT = "openvino"
"""Name in ``configs/`` of the configuration for servers with the accelerator, where it is not the default."""

OWN_VARIANTS = frozenset({_PLAIN_CPU_VARIANT, _ACCELERATED_VARIANT, *tensorrt.VARIANTS})
"""Names in ``configs/`` that belong to the exporter; a user's own have other names."""


def providers(
    signatures: Iterable[ModelSignature], precision: Precision, target: Target, *, flash_attn: bool
) -> tuple[Provider, ...]:
    """Name ONNX Runtime's providers that an export is validated on: those that serve it and exist on every machine.

    OpenVINO serves files of plain operators, on CPUs: float32 and static int8; half floats are for GPUs.
    """
    plain = precision in {"fp32", "s8"} and target == "cpu" and not flash_attn
    accelerated = plain and any(signature.encoder and signature.accelerated for signature in signatures)
    return ("cpu", "openvino") if accelerated else ("cpu",)


def config_files(
    signatures: Iterable[ModelSignature],
    precision: Precision,
    target: Target = "cpu",
    *,
    flash_attn: bool = False,
    convolutional: Collection[str] = (),
) -> dict[str, tuple[str, dict[str, str]]]:
    """Write ``config.pbtxt`` and its variants for the models of a checkpoint.

    Static int8 runs where it was measured to be faster (docs/precision.md): convolutions on OpenVINO, matrix products
    on ONNX Runtime's own kernels; the other one is a variant.

    Args:
        signatures: The models.
        precision: The weights' precision.
        target: Hardware that the configurations are for.
        flash_attn: Whether attention is one fused operator.
        convolutional: Names of the models that compute convolutions, for static int8.

    Returns:
        By model name: the text of ``config.pbtxt``, and the texts of ``configs/`` by variant.
    """
    configs = {}
    for signature in signatures:
        variants = {}
        device = _device(signature, precision, target, flash_attn)
        if device == "openvino" and precision == "s8" and signature.name not in convolutional:
            variants[_ACCELERATED_VARIANT] = model_config(signature, device)
            device = "cpu"
        if device != "cpu":
            variants[_PLAIN_CPU_VARIANT] = model_config(signature, "cpu")
        if target == "tensorrt":
            variants |= tensorrt.variants(signature, precision)
        configs[signature.name] = (model_config(signature, device), variants)
    return configs


def root_files(signatures: Iterable[ModelSignature], precision: Precision, target: Target) -> Mapping[str, str | None]:
    """Write the scripts of the repository's root by name; None: a script that this target does not need."""
    script = tensorrt.build_script(signatures, precision) if target == "tensorrt" else None
    return {tensorrt.BUILD_SCRIPT: script}


def _device(signature: ModelSignature, precision: Precision, target: Target, flash_attn: bool) -> Device:
    if not signature.encoder:
        return "cpu"
    if target != "cpu":
        return "cuda"
    return "openvino" if "openvino" in providers((signature,), precision, target, flash_attn=flash_attn) else "cpu"

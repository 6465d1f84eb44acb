"""What a repository is made for: which hardware runs its models, and the configurations that say so."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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

OWN_VARIANTS = frozenset({_PLAIN_CPU_VARIANT, *tensorrt.VARIANTS})
"""Names in ``configs/`` that belong to the exporter; a user's own have other names."""


def providers(
    signatures: Iterable[ModelSignature], precision: Precision, target: Target, *, flash_attn: bool
) -> tuple[Provider, ...]:
    """Name ONNX Runtime's providers that an export is validated on: those that serve it and exist on every machine.

    OpenVINO serves float32 files of plain operators, on CPUs; half floats are for GPUs.
    """
    plain = precision == "fp32" and target == "cpu" and not flash_attn
    accelerated = plain and any(signature.encoder and signature.accelerated for signature in signatures)
    return ("cpu", "openvino") if accelerated else ("cpu",)


def config_files(
    signatures: Iterable[ModelSignature], precision: Precision, target: Target = "cpu", *, flash_attn: bool = False
) -> dict[str, tuple[str, dict[str, str]]]:
    """Write ``config.pbtxt`` and its variants for the models of a checkpoint.

    Returns:
        By model name: the text of ``config.pbtxt``, and the texts of ``configs/`` by variant.
    """
    configs = {}
    for signature in signatures:
        variants = {}
        device = _device(signature, precision, target, flash_attn)
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

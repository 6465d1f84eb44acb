"""What a repository is made for: which hardware runs its models, and the configurations that say so."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Literal, get_args

from lychee_export.contract.signature import ModelSignature
from lychee_export.errors import CheckpointError
from lychee_export.onnx.quantization import Precision
from lychee_export.repository import tensorrt
from lychee_export.repository.triton_config import Device, model_config

__all__ = ["OWN_VARIANTS", "TARGETS", "Target", "can_choose", "check_choice", "config_files", "root_files"]

Target = Literal["cpu", "cuda", "tensorrt"]
TARGETS: tuple[Target, ...] = get_args(Target)

_CPU_VARIANTS: tuple[Device, ...] = ("cpu", "openvino")
"""Names in ``configs/`` of the configurations that say what executes an encoder, for those who do not want the server
to choose."""

OWN_VARIANTS = frozenset({*_CPU_VARIANTS, tensorrt.VARIANT, "onnxruntime-tensorrt"})
"""Names in ``configs/`` that belong to the exporter; a user's own have other names. The last is no longer written."""


def check_choice(precision: Precision, target: Target, *, flash_attn: bool) -> None:
    """Refuse a precision that the hardware cannot serve.

    Raises:
        CheckpointError: It cannot; the message names one that it can.
    """
    if target == "tensorrt":
        tensorrt.check_precision(precision)
    if precision == "s8" and (target != "cpu" or flash_attn):
        raise CheckpointError(
            f"precision s8 is for CPUs and takes no fused attention, got target {target}"
            f"{' with --flash-attn' if flash_attn else ''}; choose fp16 for GPUs"
        )
    if precision == "bf16" and target == "cpu":
        raise CheckpointError(
            "precision bf16 is for GPUs: ONNX Runtime's CPU kernels have no bfloat16. Choose fp32 for a CPU, which is "
            "served in bfloat16 where the CPU has it and the scores allow it, or --target cuda or tensorrt"
        )


def can_choose(signature: ModelSignature, precision: Precision, target: Target, *, flash_attn: bool) -> bool:
    """Tell whether a server may choose what executes a model: encoders on CPUs, in files of plain operators.

    Half floats are for GPUs; weights of few bits and fused attention are operators of ONNX Runtime's own kernels.
    """
    plain = precision in {"fp32", "s8"} and target == "cpu" and not flash_attn
    return plain and signature.encoder and signature.accelerated


def config_files(
    signatures: Iterable[ModelSignature],
    precision: Precision,
    target: Target = "cpu",
    *,
    flash_attn: bool = False,
    gpu_shares: Mapping[str, int] = MappingProxyType({}),
) -> dict[str, tuple[str, dict[str, str]]]:
    """Write ``config.pbtxt`` and its variants for the models of a checkpoint.

    Args:
        signatures: The models.
        precision: The precision of the weights.
        target: The hardware that the configurations are for.
        flash_attn: Whether attention is one fused operator.
        gpu_shares: The most bytes of GPU memory that each encoder may take, by name.

    Returns:
        The text of ``config.pbtxt`` and the texts of ``configs/`` by variant, by model name.
    """
    configs = {}
    for signature in signatures:
        device: Device = "cpu"
        variants: dict[str, str] = {}
        if can_choose(signature, precision, target, flash_attn=flash_attn):
            device = "auto"
            variants |= {name: model_config(signature, name) for name in _CPU_VARIANTS}
        elif signature.encoder and target != "cpu":
            device = "cuda"
            if precision != "bf16":  # a CPU could not load it
                variants["cpu"] = model_config(signature, "cpu")
        if target == "tensorrt":
            variants |= tensorrt.variants(signature, precision)
        config = model_config(signature, device, gpu_shares.get(signature.name), tf32=precision != "fp32")
        configs[signature.name] = (config, variants)
    return configs


def root_files(signatures: Iterable[ModelSignature], precision: Precision, target: Target) -> Mapping[str, str | None]:
    """Write the scripts of the repository's root by name; None stands for one that this target does not need."""
    script = tensorrt.build_script(signatures, precision) if target == "tensorrt" else None
    return {tensorrt.BUILD_SCRIPT: script}

"""How many rows a GPU's memory holds: the batch limits of an export for GPUs.

NVIDIA's onnxruntime backend runs whatever Triton merges, up to ``max_batch_size``, and cuts nothing into slices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch

from lychee_export.contract.limits import Limits
from lychee_export.contract.signature import ModelSignature
from lychee_export.errors import CheckpointError
from lychee_export.estimate import estimate_pieces
from lychee_export.families import Checkpoint
from lychee_export.onnx.half import HALF_TYPES
from lychee_export.onnx.quantization import Precision
from lychee_export.serving_memory import activation_bytes

__all__ = ["GpuPlan", "fit_gpu", "plan_gpu_memory"]

_USABLE = 0.92
"""What is left of a GPU's memory for weights and tensors: the CUDA context and cuBLAS take about a gigabyte of 24."""


@dataclass(frozen=True)
class _Need:
    """What one encoder takes on the GPU, in bytes."""

    weights: int
    row: int
    rows: int

    @property
    def tensors(self) -> int:
        return self.row * self.rows


@dataclass(frozen=True)
class GpuPlan:
    """Batch limits that fit, and how the encoders share the memory.

    Args:
        limits: The limits, with batches that fit; of one row where not even that does.
        shares: The most bytes that each encoder may take, weights included, by name: Triton's ``gpu_mem_limit``.
        needs: What each encoder takes of it by estimate, by name.
        usable_bytes: What the encoders share.
        asked: The limits before.
    """

    limits: Limits
    shares: Mapping[str, int]
    needs: Mapping[str, _Need]
    usable_bytes: int
    asked: Limits

    def lines(self) -> Iterator[str]:
        """Yield what was decided, for people."""
        usable = f"{self.usable_bytes / 1e9:.1f} GB"
        for name, need in self.needs.items():
            yield (
                f"GPU memory: {name} takes {need.weights / 1e9:.1f} GB of weights and {need.row / 1e9:.2f} GB for each "
                f"row of the largest size, of which {need.rows} may run at once"
            )
        for name, kind in (("text_batch", "without images"), ("image_batch", "with images")):
            before, after = getattr(self.asked, name), getattr(self.limits, name)
            if after < before:
                yield (
                    f"GPU memory: {after} instead of {before} pairs {kind} at once, to fit {usable}; a larger "
                    "--gpu-memory, a smaller --max-tokens or --max-img-size, or --flash-attn admits more"
                )
        total = sum(need.weights + need.tensors for need in self.needs.values())
        if total > self.usable_bytes:
            yield (
                f"GPU memory: WARNING: one row of the largest size takes {total / 1e9:.1f} GB with the weights, and "
                f"{usable} are there: such a request will fail. Choose --profile medium or small, --flash-attn or "
                "fewer bits, or say with --gpu-memory how much the GPU has"
            )


def fit_gpu(
    checkpoint: Checkpoint,
    limits: Limits | None,
    precision: Precision,
    gpu_memory_gb: float,
    progress: Callable[[str], None],
    *,
    fused: bool,
) -> tuple[Limits, Mapping[str, int]]:
    """Plan, and tell the user.

    Args:
        checkpoint: See plan_gpu_memory, as the others.
        limits: None takes the default limits.
        precision: The precision of the weights.
        gpu_memory_gb: The memory of the GPU in gigabytes.
        progress: Called with a line for each decision.
        fused: Whether attention is one fused operator.

    Returns:
        The limits with batches that fit, and the most bytes that each encoder may take, by name.

    Raises:
        CheckpointError: The weights alone do not fit.
    """
    plan = plan_gpu_memory(checkpoint, limits or Limits(), precision, gpu_memory_gb, fused=fused)
    for line in plan.lines():
        progress(line)
    return plan.limits, plan.shares


def plan_gpu_memory(
    checkpoint: Checkpoint, limits: Limits, precision: Precision, gpu_memory_gb: float, *, fused: bool
) -> GpuPlan:
    """Halve the batches until weights and tensors of the largest run of every encoder fit at the same time.

    Args:
        checkpoint: The checkpoint within the limits; its modules may lie on the meta device.
        limits: The limits that the user chose.
        precision: The precision of the weights.
        gpu_memory_gb: The memory of the GPU in gigabytes.
        fused: Whether attention is one fused operator, which keeps no scores of all tokens against all.
    """
    usable = int(gpu_memory_gb * 1e9 * _USABLE)
    encoders = [piece for piece in checkpoint.pieces if piece.signature.encoder]
    sizes = {size.name: size.served_bytes for size in estimate_pieces(encoders, precision)}
    dtype = HALF_TYPES.get(precision, torch.float32)
    rows = {piece.signature.name: activation_bytes(piece, 1, dtype, fused=fused) for piece in encoders}
    fitting = limits
    while True:
        needs = {
            piece.signature.name: _Need(
                sizes[piece.signature.name], rows[piece.signature.name], _count_rows(piece.signature, fitting)
            )
            for piece in encoders
        }
        halved = _halve(fitting, max(needs, key=lambda name: needs[name].tensors))
        if sum(need.weights + need.tensors for need in needs.values()) <= usable or halved == fitting:
            return GpuPlan(fitting, _share(needs, usable), needs, usable, limits)
        fitting = halved


def _count_rows(signature: ModelSignature, limits: Limits) -> int:
    """Return how many rows an encoder takes within these limits; one that reads texts takes those of images too."""
    reads_pixels = any(spec.name == "pixel_values" for spec in signature.inputs)
    most = limits.image_batch if reads_pixels else limits.largest_batch
    return min(signature.max_batch_size, most)


def _halve(limits: Limits, largest: str) -> Limits:
    """Halve the batch of the encoder that takes the most; the same limits where both are 1."""
    if largest == "vision_encoder" and limits.image_batch > 1:
        return replace(limits, image_batch=limits.image_batch // 2)
    most = max(1, limits.largest_batch // 2)
    return replace(limits, text_batch=min(limits.text_batch, most), image_batch=min(limits.image_batch, most))


def _share(needs: Mapping[str, _Need], usable: int) -> dict[str, int]:
    """Give each encoder its weights, and divide the rest in proportion to its tensors.

    Raises:
        CheckpointError: There is no rest.
    """
    weights = sum(need.weights for need in needs.values())
    if weights >= usable:
        raise CheckpointError(
            f"the weights alone take {weights / 1e9:.1f} GB, and {usable / 1e9:.1f} GB of the GPU are there for them; "
            "choose fewer bits with --precision, or say how much the GPU has with --gpu-memory"
        )
    tensors = sum(need.tensors for need in needs.values())
    return {name: need.weights + (usable - weights) * need.tensors // max(tensors, 1) for name, need in needs.items()}

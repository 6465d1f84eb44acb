"""What an export would write and what serving it would take, without weights and without writing anything."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lychee_client.manifest import ModelSpec, describe_reading
from lychee_client.repository import TRITON_BYTES, process_bytes

from lychee_export.checkpoint.hub import weight_bytes
from lychee_export.checkpoint.lookup import find_checkpoint
from lychee_export.checkpoint.reading import Reading
from lychee_export.contract.limits import Limits
from lychee_export.contract.signature import ModelSignature
from lychee_export.estimate import PieceSize, estimate_pieces
from lychee_export.export_memory import export_bytes
from lychee_export.families import load_checkpoint
from lychee_export.gpu_memory import fit_gpu
from lychee_export.onnx.quantization import Precision
from lychee_export.serving_memory import activation_bytes

__all__ = ["DryRun", "PiecePlan", "plan_export"]


@dataclass(frozen=True)
class PiecePlan:
    """What one model will take.

    Args:
        size: The sizes of the model and of its files.
        memory_bytes: Bytes of memory that the process which serves it takes while it computes the largest request.
    """

    size: PieceSize
    memory_bytes: int


@dataclass(frozen=True)
class DryRun:
    """What an export would do.

    Args:
        spec: What the client will know of the model.
        pieces: The models with files of their own.
        ensembles: The ensembles: models without files of their own.
        download_bytes: The size of the weights on the hub, in bytes; None for a folder, or if the hub cannot be asked.
        export_bytes: Bytes of memory that the export holds at its worst moment, without the files that it maps.
        gpu: What fits into the memory of a GPU, line by line; empty for a CPU.
    """

    spec: ModelSpec
    pieces: tuple[PiecePlan, ...]
    ensembles: tuple[ModelSignature, ...]
    download_bytes: int | None
    export_bytes: int
    gpu: tuple[str, ...] = ()

    def lines(self) -> Iterator[str]:
        """Yield the report, line by line."""
        yield f"{self.spec.model_id} is of the family {self.spec.family}; nothing is loaded or written"
        yield from describe_reading(self.spec)
        width = max(len(piece.size.name) for piece in self.pieces)
        for piece in self.pieces:
            size = piece.size
            files = " + ".join(f"{size.name}/{file}" for file in size.files)
            yield (
                f"{size.name:{width}}  {size.parameters / 1e6:9,.1f} M weights  {size.served_bytes / 1e6:9,.1f} MB on "
                f"disk  {piece.memory_bytes / 1e6:9,.0f} MB to serve  {files}"
            )
        yield f"ensembles, without files: {', '.join(ensemble.name for ensemble in self.ensembles)}; and client_assets"
        disk = sum(piece.size.served_bytes for piece in self.pieces)
        memory = TRITON_BYTES + process_bytes(0) + sum(piece.memory_bytes for piece in self.pieces)
        yield (
            f"all: {disk / 1e6:,.1f} MB on disk; about {memory / 1e6:,.0f} MB of memory to serve on a CPU: weights, "
            "tensors of the largest request, the models' processes and Triton"
        )
        yield from self.gpu
        mapped = max(piece.size.exported_bytes for piece in self.pieces)
        yield (
            f"the export takes about {self.export_bytes / 1e6:,.0f} MB of memory, and reads mapped files of up to "
            f"{mapped / 1e6:,.0f} MB: memory beyond the first number keeps them there and saves time"
        )
        if self.download_bytes is not None:
            yield f"to download if it is not in the cache: {self.download_bytes / 1e6:,.1f} MB"


def plan_export(
    checkpoint: str,
    precision: Precision = "fp32",
    *,
    limits: Limits | None = None,
    gpu_memory_gb: float | None = None,
    flash_attn: bool = False,
    reading: Reading | None = None,
) -> DryRun:
    """Estimate an export from the checkpoint's config alone.

    The memory is an estimate for ONNX Runtime on a CPU: weights at their precision, as stored and as the runtime lays
    them out, the tensors of the largest run as torch would hold them, and the processes themselves.

    Args:
        checkpoint: The name of a bundled checkpoint, the path of a checkpoint folder, or "owner/name" on the hub.
        precision: The precision of the weights.
        limits: What the deployment admits. None takes the default limits.
        gpu_memory_gb: The memory of the GPU in gigabytes; None for a CPU.
        flash_attn: Whether attention is one fused operator.
        reading: How the checkpoint is found and read. None takes what it says itself.

    Raises:
        CheckpointError: The checkpoint's config or tokenizer cannot be read, or the weights do not fit into the GPU.
    """
    loaded = load_checkpoint(checkpoint, limits, reading, weights=False)
    gpu: list[str] = []
    if gpu_memory_gb is not None:
        fitting, _ = fit_gpu(loaded, limits, precision, gpu_memory_gb, gpu.append, fused=flash_attn)
        loaded = load_checkpoint(checkpoint, fitting, reading, weights=False)
    sizes = estimate_pieces(loaded.pieces, precision)
    source = find_checkpoint(checkpoint, reading)
    return DryRun(
        spec=loaded.card.spec,
        pieces=tuple(
            PiecePlan(size, process_bytes(size.served_bytes) + activation_bytes(piece))
            for size, piece in zip(sizes, loaded.pieces, strict=True)
        ),
        ensembles=(*loaded.card.inner_ensembles, *loaded.card.ensembles),
        download_bytes=None if Path(checkpoint).exists() else weight_bytes(checkpoint, source.reading.revision),
        export_bytes=export_bytes(source, loaded.pieces, precision),
        gpu=tuple(gpu),
    )

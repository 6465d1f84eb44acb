"""How large an export will be, from the modules' shapes alone."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lychee_client.repository import MODEL_FILENAME
from torch import nn

from lychee_export.errors import WriteError
from lychee_export.families import Piece
from lychee_export.onnx.half import HALF_TYPES
from lychee_export.onnx.model_file import DATA_FILENAME, EXTERNAL_DATA_BYTES
from lychee_export.onnx.quantization import BITS, BLOCK_SIZE, QUANTIZED, Precision

__all__ = ["PieceSize", "check_disk_space", "estimate_pieces"]

_GRAPH_BYTES = 4_000_000
"""More than any graph without its weights takes; configurations and the tokenizer included."""


@dataclass(frozen=True)
class PieceSize:
    """What one model will take.

    Args:
        name: The name of the model.
        parameters: How many weights it has.
        exported_bytes: The size in bytes of the file that torch writes.
        served_bytes: The size in bytes of the file that is served: smaller if its weights are quantized afterwards.
    """

    name: str
    parameters: int
    exported_bytes: int
    served_bytes: int

    @property
    def files(self) -> tuple[str, ...]:
        """The names of the files in the version folder."""
        return (MODEL_FILENAME,) if self.served_bytes <= EXTERNAL_DATA_BYTES else (MODEL_FILENAME, DATA_FILENAME)


def estimate_pieces(pieces: Iterable[Piece], precision: Precision) -> tuple[PieceSize, ...]:
    """Estimate the size of every model of a checkpoint; its modules may lie on the meta device."""
    return tuple(_estimate(piece, precision if piece.signature.encoder else "fp32") for piece in pieces)


def check_disk_space(repository: Path, sizes: Iterable[PieceSize]) -> None:
    """Compare what an export needs at its worst moment with what is free.

    Raises:
        WriteError: There is not enough free space.
    """
    needed = sum(size.exported_bytes + _GRAPH_BYTES for size in sizes)
    needed += sum(size.served_bytes for size in sizes if size.served_bytes != size.exported_bytes)
    folder = next(path for path in (repository, *repository.absolute().parents) if path.exists())
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise WriteError(
            f"the export needs {needed / 1e9:.2f} GB in {repository}, and {free / 1e9:.2f} GB are free; make room, or "
            "name another folder with --repository"
        )


def _estimate(piece: Piece, precision: Precision) -> PieceSize:
    weights = {id(weight): weight for weight in (*piece.module.parameters(), *piece.module.buffers())}
    parameters = sum(weight.numel() for weight in weights.values())
    exported = parameters * (2 if precision in HALF_TYPES else 4)
    served = exported
    if precision in QUANTIZED:
        matrices = {id(module.weight): module.weight for module in piece.module.modules() if type(module) is nn.Linear}
        quantized = sum(matrix.numel() for matrix in matrices.values())
        # s8 has one scale for each output, which is less than the convolutions that it quantizes too
        scales = quantized * 4 // BLOCK_SIZE if precision in BITS else 0
        served += quantized * BITS.get(precision, 8) // 8 + scales - quantized * 4
    return PieceSize(piece.signature.name, parameters, exported, served)

"""The weight files of a checkpoint folder: which they are, and whether they are whole."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from lychee_export.checkpoint.layout import ADAPTER, ADAPTER_CONFIG, OPEN_CLIP, TRANSFORMERS, Layout
from lychee_export.errors import CheckpointError

__all__ = ["check_weights", "hash_files", "held_bytes", "stored_dtype", "weight_files"]

_HEADER_LENGTH_BYTES = 8
_HALVES = {"BF16": torch.bfloat16, "F16": torch.float16}


def weight_files(folder: Path, layout: Layout = TRANSFORMERS) -> tuple[Path, ...]:
    """List the files of the weights that are read.

    Raises:
        CheckpointError: There are no weight files, an index names a shard that is not there, or there are an adapter
            and full weights side by side.
    """
    for name in layout.weights:
        index = folder / f"{name}.index.json"
        files = (folder / name,) if (folder / name).is_file() else _shards(index) if index.is_file() else ()
        if files and layout is not ADAPTER and (folder / ADAPTER_CONFIG).is_file():
            raise CheckpointError(
                f"{folder} holds both full weights ({files[0].name}) and {ADAPTER_CONFIG}, so that it is not clear "
                "whether the adapter is merged already; keep one of them in the folder"
            )
        if files:
            return files
    raise CheckpointError(
        f"{folder} holds no weights; expected {' or '.join(layout.weights)}, or the index and shards of one of them"
    )


def check_weights(folder: Path, layout: Layout = TRANSFORMERS) -> None:
    """Look for absent and truncated weight files before a framework gives a riddle about them.

    Raises:
        CheckpointError: A file is absent or shorter than its header says.
    """
    for path in weight_files(folder, layout):
        if path.suffix == ".safetensors":
            _check_length(path)


def hash_files(paths: Iterable[Path]) -> str:
    """Return the SHA-256, in hex, of the files' contents one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _shards(index: Path) -> tuple[Path, ...]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index} is no index of weights: {type(error).__name__}: {error}") from error
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing:
        raise CheckpointError(
            f"{index} names {len(names)} files, and {', '.join(missing)} is not there; download the checkpoint again"
        )
    return tuple(index.parent / name for name in names)


def stored_dtype(folder: Path, layout: Layout = TRANSFORMERS) -> torch.dtype:
    """Return the 16-bit dtype in which all floating-point weights are stored; float32 if that is not so, or unknown."""
    names: set[str] = set()
    for path in _present(folder, layout):
        if path.suffix != ".safetensors" or layout is OPEN_CLIP:  # whose weights get other names
            return torch.float32
        names |= {entry["dtype"] for entry in _read_header(path)[0].values()}
    floats = {name for name in names if name.startswith(("F", "BF"))}
    return _HALVES.get(floats.pop(), torch.float32) if len(floats) == 1 else torch.float32


def held_bytes(folder: Path, layout: Layout = TRANSFORMERS) -> int:
    """Return how much memory the weights take once they are loaded: none that stay in the files, four bytes of others.

    Before weights are downloaded nothing is known of them; then it is 0.
    """
    files = _present(folder, layout)
    if any(path.suffix != ".safetensors" for path in files):
        return 2 * sum(path.stat().st_size for path in files)  # 16 bits become 32
    if stored_dtype(folder, layout) != torch.float32:
        return 0
    entries = (entry for path in files for entry in _read_header(path)[0].values())
    return sum(4 * math.prod(entry["shape"]) for entry in entries if entry["dtype"] != "F32")


def _present(folder: Path, layout: Layout) -> tuple[Path, ...]:
    try:
        return weight_files(folder, layout)
    except CheckpointError:
        return ()


def _check_length(path: Path) -> None:
    """Compare a safetensors file's size with its header: 8 bytes of length, JSON, then the tensors without gaps."""
    seen = path.stat().st_size
    try:
        header, start = _read_header(path)
        ends = [entry["data_offsets"][1] for entry in header.values()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is no safetensors file: {error}; download it again") from error
    expected = start + max(ends, default=0)
    if seen < expected:
        raise CheckpointError(f"{path} is truncated: it has {seen} bytes, expected {expected}; download it again")


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    """Return what the header says of each tensor, and where the tensors begin.

    Raises:
        CheckpointError: The file ends within its header.
    """
    seen = path.stat().st_size
    with path.open("rb") as file:
        start = _HEADER_LENGTH_BYTES + int.from_bytes(file.read(_HEADER_LENGTH_BYTES), "little")
        if start > seen:
            raise CheckpointError(
                f"{path} is truncated: it has {seen} bytes, its header alone takes {start}; download it again"
            )
        header = json.loads(file.read(start - _HEADER_LENGTH_BYTES))
    return {name: entry for name, entry in header.items() if name != "__metadata__"}, start

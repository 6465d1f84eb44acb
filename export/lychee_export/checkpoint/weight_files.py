"""The weight files of a checkpoint folder: which they are, and whether they are whole."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from lychee_export.errors import CheckpointError

__all__ = ["check_weights", "hash_files", "weight_files"]

_SINGLE = ("model.safetensors", "pytorch_model.bin")
"""In the order in which transformers looks for them; each has an index if it is split into shards."""
_ADAPTER = "adapter_config.json"
_HEADER_LENGTH_BYTES = 8


def weight_files(folder: Path) -> tuple[Path, ...]:
    """List the weight files that transformers would read.

    Raises:
        CheckpointError: There are no weight files, or an index names a shard that is not there.
    """
    for name in _SINGLE:
        if (folder / name).is_file():
            return (folder / name,)
        index = folder / f"{name}.index.json"
        if index.is_file():
            return _shards(index)
    if (folder / _ADAPTER).is_file():
        raise CheckpointError(
            f"{folder} holds a LoRA adapter ({_ADAPTER}) and no full weights. Merge it into its base model first: "
            "PeftModel.from_pretrained(base, adapter).merge_and_unload().save_pretrained(folder), with the base "
            "model's tokenizer and processor saved beside it"
        )
    raise CheckpointError(
        f"{folder} holds no weights; expected {' or '.join(_SINGLE)}, or the index and shards of one of them"
    )


def check_weights(folder: Path) -> None:
    """Look for absent and truncated weight files before a framework gives a riddle about them.

    Raises:
        CheckpointError: A file is absent or shorter than its header says.
    """
    for path in weight_files(folder):
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


def _check_length(path: Path) -> None:
    """Compare a safetensors file's size with its header: 8 bytes of length, JSON, then the tensors without gaps."""
    seen = path.stat().st_size
    try:
        with path.open("rb") as file:
            header_bytes = int.from_bytes(file.read(_HEADER_LENGTH_BYTES), "little")
            if _HEADER_LENGTH_BYTES + header_bytes > seen:
                raise CheckpointError(
                    f"{path} is truncated: it has {seen} bytes, its header alone takes "
                    f"{_HEADER_LENGTH_BYTES + header_bytes}; download it again"
                )
            header = json.loads(file.read(header_bytes))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is no safetensors file: {error}; download it again") from error
    expected = _HEADER_LENGTH_BYTES + header_bytes + max(ends, default=0)
    if seen < expected:
        raise CheckpointError(f"{path} is truncated: it has {seen} bytes, expected {expected}; download it again")

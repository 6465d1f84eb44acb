"""Keys that tell the work of one export from that of another."""

from __future__ import annotations

import hashlib
from pathlib import Path

from lychee_export.checkpoint.weight_files import hash_files
from lychee_export.repository.manifest import created_by

__all__ = ["describe_maker", "digest"]

_KEY_DIGITS = 16


def describe_maker() -> str:
    """Name what makes the exported files: this code and the packages that it uses."""
    return digest(created_by(), hash_files(sorted(Path(__file__).parent.rglob("*.py"))))


def digest(*parts: object) -> str:
    """Return a short hash of what parts look like in Python."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:_KEY_DIGITS]

"""JSON files of a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lychee_export.errors import CheckpointError

__all__ = ["read_array", "read_object"]


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON object; an absent file is empty.

    Raises:
        CheckpointError: The file is not JSON, or is no object.
    """
    content = _read(path)
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, expected an object")
    return content


def read_array(path: Path) -> list[dict[str, Any]]:
    """Read a JSON array of objects; an absent file is empty.

    Raises:
        CheckpointError: The file is not JSON, or is no such array.
    """
    content = _read(path)
    if not isinstance(content, list | None) or not all(isinstance(entry, dict) for entry in content or ()):
        raise CheckpointError(f"{path} holds no array of objects; download it again")
    return content or []


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is not JSON: {error}") from error

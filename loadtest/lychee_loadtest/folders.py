"""Where the programs look and write unless told otherwise: in the project's folder, which is the current one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

__all__ = ["REPOSITORY", "RESULTS", "write_record"]

REPOSITORY: Final = Path("model_repository")
RESULTS: Final = Path("loadtest", "results")


def write_record(path: Path, content: Mapping[str, Any]) -> None:
    """Write what was measured as JSON, into a folder that is made if it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

"""Where the programs look and write unless told otherwise: in the project's folder, which is the current one."""

from __future__ import annotations

from pathlib import Path
from typing import Final

__all__ = ["REPOSITORY", "RESULTS"]

REPOSITORY: Final = Path("model_repository")
RESULTS: Final = Path("loadtest", "results")

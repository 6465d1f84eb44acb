"""Where the examples lie: the catalogue and the labelled pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Final

# In the wheel beside this module; in the repository, from which the wheel is built, at the top.
FOLDERS: Final = (Path(__file__).parent / "bundled", Path(__file__).parents[3] / "examples")


def find_example(*parts: str) -> Path | None:
    """Return the path of an example, or None where the examples are not installed."""
    return next((path for folder in FOLDERS if (path := folder.joinpath(*parts)).is_file()), None)

"""The page: files that speak the REST API, and what its own routes need of `lychee_evaluate`."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Final

NEEDED: Final = "lychee-rerank-evaluate"
INSTALL: Final = "pip install 'lychee-rerank-server[web]'"


def is_installed() -> bool:
    """Say whether what the page needs is installed: NEEDED, by INSTALL."""
    return find_spec("lychee_evaluate") is not None

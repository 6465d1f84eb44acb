"""The comparison is a package in loadtest/, whose scripts find each other in that folder."""

from __future__ import annotations

import sys
from pathlib import Path

FOLDER = Path(__file__).parents[3] / "loadtest"
if str(FOLDER) not in sys.path:
    sys.path.append(str(FOLDER))

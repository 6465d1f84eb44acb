"""Starting points for hardware that is not at hand: the batch sizes of `profiles.csv`, which were not measured here.

Source: a guide to tuning lychee-rerank-mm that its users follow; it names neither method nor software versions. Images
get a quarter of the texts' batch, as that guide has it for the RTX 3090: 6 instead of 24.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Final, NamedTuple

__all__ = ["ORIGIN", "HardwareProfile", "read_profiles"]

ORIGIN: Final = "a starting point from the literature, not measured here"


class HardwareProfile(NamedTuple):
    """Batch sizes for one kind of hardware, by modality."""

    hardware: str
    batches: dict[str, int]


def read_profiles() -> dict[str, HardwareProfile]:
    """Return the profiles by name."""
    rows = csv.DictReader(Path(__file__).with_suffix(".csv").read_text(encoding="utf-8").splitlines())
    return {
        row["profile"]: HardwareProfile(row["hardware"], {"text": int(row["texts"]), "image": int(row["images"])})
        for row in rows
    }

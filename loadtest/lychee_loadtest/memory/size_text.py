"""Amounts of memory as people write them."""

from __future__ import annotations

import re
from typing import Final

from lychee_server.errors import SettingsError

__all__ = ["parse_size"]

_UNITS: Final = {
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    # As Docker and Kubernetes write them.
    "k": 2**10,
    "m": 2**20,
    "g": 2**30,
    "ki": 2**10,
    "mi": 2**20,
    "gi": 2**30,
}


def parse_size(text: str) -> int:
    """Return the bytes of `4GB`, `4096MiB` or, with Docker's meaning of 2**30, `4g`.

    Raises:
        SettingsError: It is not a positive number with one of these units.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+)\s*", text)
    unit = None if match is None else _UNITS.get(match[2].lower())
    size = 0 if match is None or unit is None else int(float(match[1]) * unit)
    if size <= 0:
        raise SettingsError(
            f"{text!r} is not an amount of memory; expected a number with a unit, such as 4GB or 4096MiB."
        )
    return size

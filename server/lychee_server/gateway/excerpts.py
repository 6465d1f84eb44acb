"""What messages and warnings quote of a request: enough to find the place, never a whole text or image."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

MAX_CHARACTERS: Final = 40
MAX_NAMES: Final = 10


def excerpt_of(value: Any, *, quoted: bool = True) -> str:
    """Say what a JSON value is, in a few characters that fit into one line of a message.

    Args:
        value: Anything that JSON can hold.
        quoted: Whether a string may be quoted, as far as it is short; texts and images of calls may not.
    """
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return quote(value) if quoted else f"a string of {len(value)} characters"
    if isinstance(value, list):
        return f"an array of {len(value)}"
    if isinstance(value, int) and abs(value) >= 10**MAX_CHARACTERS:  # Python writes none of more than 4,300 digits
        return f"a number of more than {MAX_CHARACTERS} digits"
    return "an object" if isinstance(value, dict) else str(value)


def quote(text: str) -> str:
    """Return the beginning of a text in quotes, what cannot be printed as an escape."""
    return repr(text) if len(text) <= MAX_CHARACTERS else f"{text[:MAX_CHARACTERS]!r}..."


def list_names(names: Iterable[str]) -> str:
    """Return the first names, quoted."""
    quoted = [quote(name) for name in names]
    more = " and more" if len(quoted) > MAX_NAMES else ""
    return ", ".join(quoted[:MAX_NAMES]) + more

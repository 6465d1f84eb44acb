"""How large the directory of a zip is, before anyone reads it: every entry takes memory."""

from __future__ import annotations

from typing import Final

_END: Final = b"PK\x05\x06"  # end of central directory
_END_64: Final = b"PK\x06\x07"
_END_BYTES: Final = 22
_MAX_COMMENT_BYTES: Final = 65_535


def directory_bytes(data: bytes) -> int | None:
    """Return how many bytes the directory of a zip says it has; None if there is none.

    A zip with a 64-bit directory counts as larger than any limit: nothing of ours needs one.

    Source: https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT, 4.3.16. The record is found as zipfile does.
    """
    start = len(data) - _END_BYTES
    if not (data[start : start + 4] == _END and data.endswith(b"\0\0")):
        start = data.rfind(_END, max(0, start - _MAX_COMMENT_BYTES))
    if start < 0:
        return None
    if data[max(0, start - 20) : start].startswith(_END_64):
        return 2**63
    return int.from_bytes(data[start + 12 : start + 16], "little")

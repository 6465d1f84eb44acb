"""What a user has to change: kind and values, for a page to word in its languages, and an English message."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

MESSAGES: Final[Mapping[str, str]] = {
    "no_file": "no file was sent; send labelled pairs as the body, or example=true for the example pairs",
    "zip": "the zip cannot be unpacked: {reason}; pack it again",
    "tables": "the zip holds {count} tables ({names}); expected exactly one .csv, .jsonl or .ndjson",
    "members": "the zip holds too many files; at most {limit} are read: pack only the table and its images",
    "unpacked": "the images of the zip have more than {limit} MiB in all; shrink them, or calibrate on fewer pairs",
    "table_size": "the table has more than {limit} MiB; put images into a zip beside the table instead of data URLs, "
    "or calibrate on fewer pairs",
    "pairs": "the table has too many rows; up to {limit} pairs are taken here: use `lychee calibrate` for more",
    "pairs_shape": "the JSON is no object whose `pairs` is a list of objects; expected "
    '{{"pairs": [{{"query": ..., "text": ..., "relevant": true}}]}}',
    "target": "the target cannot be read; expected precision>=P or recall>=R with a number above 0 and up to 1, or f1",
    "no_example": "the example pairs are not installed here; send a file",
    "instructions": "the pairs have {count} different instructions, and a threshold holds for one only; name it as "
    "instruction",
}


class PageError(Exception):
    """The user has to change something; nothing was scored.

    Args:
        kind: What has to be changed, a key of MESSAGES or a kind of doubt.
        values: What the message names.

    Attributes:
        message: English, for people.
    """

    def __init__(self, kind: str, **values: object) -> None:
        super().__init__(kind)
        self.kind = kind
        self.values = values

    @property
    def message(self) -> str:
        """English, for people."""
        return MESSAGES[self.kind].format(**self.values)

    def __str__(self) -> str:
        return self.message

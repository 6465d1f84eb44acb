"""Long texts: how much of one fits, and the windows that it is read in.

A tokenizer may read a part of a text otherwise than within the whole, so its offsets only propose where to cut: a
window is tokenized again by itself before it counts as one that fits. Of a text no more is tokenized than is asked for.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from lychee_client.preprocessing.image import Image
from lychee_client.preprocessing.prompt import CHARACTERS_PER_TOKEN
from lychee_client.preprocessing.text import MAX_CHARACTERS, skip_invisible

# So many tokens may a text lose where it is read with what stands around it: the rest of a text may fit although it has
# more by itself.
MERGED_TOKENS: Final = 2
_ZERO_WIDTH_JOINER: Final = "\u200d"
# Code points that complete the one before, besides marks and modifiers: letters of flags, vowels and finals of Hangul.
_ADDITIONS: Final = (range(0x1F1E6, 0x1F200), range(0x1160, 0x1200))

# Returns where each token of a text begins, in characters; special tokens are left out.
FindTokens: TypeAlias = Callable[[str], Sequence[int]]
# Returns by how many tokens a text is too long; 0 or less where it fits.
FindSurplus: TypeAlias = Callable[[str], int]


@dataclass(frozen=True, slots=True)
class Room:
    """What the model reads at a time, with one query.

    Attributes:
        query_surplus: By how many tokens the query is too long.
        beside: Returns what measures the texts of a document that has these images.
    """

    query_surplus: int
    beside: Callable[[Sequence[Image]], FindSurplus]


def cut_text(text: str, max_tokens: int, find_tokens: FindTokens) -> int:
    """Return how many characters of a text are at most so many tokens."""
    start = 0
    while True:
        head, begins = _tokenize_head(text, start, max_tokens, find_tokens)
        if len(begins) > max_tokens or start + len(head) == len(text):
            break
        border = find_border(text, start + len(head) // 2, start + len(head))
        max_tokens -= bisect_left(begins, border - start)
        start = border
    kept = min(len(begins), max_tokens)
    length = begins[kept] if kept < len(begins) else len(head)
    while length and (surplus := len(find_tokens(head[:length])) - max_tokens) > 0:
        kept = max(0, kept - surplus)
        length = min(length - 1, begins[kept])
    return start + length


def find_windows(
    text: str, find_overlap: Callable[[int], int], find_tokens: FindTokens, find_surplus: FindSurplus
) -> Iterator[tuple[int, int]]:
    """Yield begin and end of windows until every visible character was in one; 0 and the length of a text that fits.

    Nothing more is yielded where there is no room for a single character. One window is found at a time, so whoever
    stops asking has read no further.

    Args:
        text: The text, which has passed `check_text`.
        find_overlap: Returns how many tokens two windows have in common, given how many fit into one.
        find_tokens: Finds the tokens of a text.
        find_surplus: Measures a text.
    """
    room = -find_surplus("")
    if room < 1:
        return
    overlap = find_overlap(room)
    start = covered = 0
    while True:
        end, begins = _find_end(text, start, covered, room, find_tokens, find_surplus)
        if end <= start:
            return
        if end <= covered:  # with what it repeats it reaches no further
            start = skip_invisible(text, covered)
            continue
        if skip_invisible(text, start) < end:
            yield start, end
        covered = end
        following = skip_invisible(text, end)
        if following == len(text):
            return
        start = skip_invisible(text, _step_back(text, start, end, begins, overlap))


def find_border(text: str, low: int, high: int) -> int:
    """Return the last place after `low`, and not after `high`, at which a text may be cut: best between two words."""
    if high >= len(text):
        return len(text)
    whole = 0
    for place in range(high, low, -1):
        before, after = text[place - 1], text[place]
        if is_joined(before, after):
            continue
        if not (_is_in_word(before) and _is_in_word(after)):
            return place
        whole = whole or place
    return whole or high


def _tokenize_head(text: str, start: int, room: int, find_tokens: FindTokens) -> tuple[str, Sequence[int]]:
    """Return a part of a text from `start` on that has more than `room` tokens, if there is one; and its tokens."""
    length = CHARACTERS_PER_TOKEN * room
    while True:
        head = text[start : start + min(length, MAX_CHARACTERS)]
        begins = find_tokens(head)
        if len(begins) > room or start + len(head) == len(text) or len(head) == MAX_CHARACTERS:
            return head, begins
        length *= 2


def _find_end(
    text: str, start: int, covered: int, room: int, find_tokens: FindTokens, find_surplus: FindSurplus
) -> tuple[int, Sequence[int]]:
    """Return where a window ends that begins at `start`, and where its tokens begin, counted from there.

    It ends between two words if there is a border in its second half and after `covered`.
    """
    head, begins = _tokenize_head(text, start, room, find_tokens)
    is_rest = start + len(head) == len(text)
    spare = MERGED_TOKENS if is_rest else 0
    high = start + (begins[room] if len(begins) > room + spare else len(head))
    while high > start:
        end = find_border(text, max(covered, (start + high) // 2), high)
        surplus = find_surplus(text[start:end])
        if surplus <= 0:
            return end, begins
        kept = bisect_left(begins, end - start) - surplus
        high = min(end - 1, start + begins[kept]) if kept > 0 else start
    return start, begins


def _step_back(text: str, start: int, end: int, begins: Sequence[int], overlap: int) -> int:
    """Return where the next window begins, so that it repeats so many tokens.

    To begin with a word it repeats up to twice as many characters, but never the first quarter of this window.
    """
    count = bisect_left(begins, end - start)
    repeated = min(overlap, count // 2)
    place = start + begins[count - repeated] if repeated else end
    if place == end:
        return end
    border = find_border(text, max(start + (end - start) // 4, 2 * place - end), place)
    return border if border > start else end


def is_joined(before: str, after: str) -> bool:
    """Say whether two code points are parts of one character to those who read them."""
    return (
        unicodedata.category(after).startswith(("M", "Sk"))
        or _ZERO_WIDTH_JOINER in (before, after)
        or any(ord(after) in additions for additions in _ADDITIONS)
        or before + after == "\r\n"
    )


def _is_in_word(character: str) -> bool:
    """Say whether a word goes on with this character. Scripts without spaces, and wide characters, begin a new one."""
    if unicodedata.east_asian_width(character) in "WF":
        return False
    return character.isalnum() or character == "_" or unicodedata.category(character)[0] == "M"

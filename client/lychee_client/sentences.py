"""Texts to sentences, in any language."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import accumulate
from typing import Final
from unicodedata import category

from lychee_client.preprocessing.text import is_visible
from lychee_client.preprocessing.windows import is_joined

MAX_CHARACTERS: Final = 512
"""What has not ended by then is no sentence, but a table or a list of words, and is cut."""

# Of these only a plain space has one byte, as sentencex assumes: it panics after others. One character for one.
_WHITE_SPACE: Final = re.compile(r"[^\S ]")
_LANGUAGE: Final = "en"
"""Whose abbreviations end no sentence. Which characters end one is the same in sentencex for every language."""


def find_sentences(text: str) -> Iterator[tuple[int, int]]:
    """Yield where each sentence begins and ends, in code points, without the white space around it.

    A line break ends a sentence, as in Unicode's rules (UAX 29): lines of lists, tables and YAML stand for themselves.
    What has no visible character is left out.
    """
    begin = 0
    for line in text.splitlines(keepends=True):
        for piece in _split_line(line) if is_visible(line) else (line,):
            if is_visible(piece):
                yield begin + len(piece) - len(piece.lstrip()), begin + len(piece.rstrip())
            begin += len(piece)


def find_cut(text: str, most: int) -> int:
    """Return where to cut a text in two: after white space or punctuation, if possible, and never within a character.

    Args:
        text: The text, longer than `most`.
        most: How many code points the first part may have, at least 2; it gets at least half of that.
    """
    for is_good in (_is_after_space, _is_after_punctuation, _is_between_characters):
        for cut in range(most, most // 2, -1):
            if is_good(text, cut):
                return cut
    return most


def _split_line(line: str) -> Iterator[str]:
    """Yield the pieces of a line, each at most MAX_CHARACTERS long; together they are the line."""
    begin = 0
    while begin < len(line):
        window = line[begin : begin + MAX_CHARACTERS]
        pieces = _segment(window)
        if begin + len(window) < len(line):
            if len(pieces) > 1:
                pieces.pop()  # it may go on
            else:
                pieces = [window[: find_cut(line[begin : begin + len(window) + 1], len(window))]]
        yield from pieces
        begin += sum(map(len, pieces))


def _segment(text: str) -> list[str]:
    """Return the sentences of a short text in one line; together they are the text."""
    from sentencex import segment  # not before sentences are asked for

    try:
        lengths = [len(sentence) for sentence in segment(_LANGUAGE, _WHITE_SPACE.sub(" ", text))]
    except BaseException as error:  # a panic in Rust is no Exception
        if type(error).__name__ != "PanicException":
            raise
        return [text]
    if sum(lengths) != len(text):
        return [text]
    return [text[end - length : end] for end, length in zip(accumulate(lengths), lengths, strict=True)]


def _is_after_space(text: str, cut: int) -> bool:
    return text[cut - 1].isspace()


def _is_after_punctuation(text: str, cut: int) -> bool:
    return category(text[cut - 1]).startswith("P") and not category(text[cut]).startswith(("P", "M"))


def _is_between_characters(text: str, cut: int) -> bool:
    return not is_joined(text[cut - 1], text[cut])

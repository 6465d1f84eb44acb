"""The characters of a file. A wrong guess would be scored as if it were text, so what is open is asked for."""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import charset_normalizer

from lychee_evaluate.tables.message import TableError

UTF8: Final = "UTF-8"
# Longer marks first: that of UTF-32 begins like that of UTF-16.
_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8", "UTF-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le", "UTF-32"),
    (codecs.BOM_UTF32_BE, "utf-32-be", "UTF-32"),
    (codecs.BOM_UTF16_LE, "utf-16-le", "UTF-16"),
    (codecs.BOM_UTF16_BE, "utf-16-be", "UTF-16"),
    (b"\x84\x31\x95\x33", "gb18030", "GB18030"),
)
# What Excel saves as plain CSV: on Chinese, Japanese and Korean machines, and in Europe. The last three are there so
# that they are not taken for one of the first; which of them it is, nobody can tell from a few words.
_ASIAN: Final = {"gb18030": "GB18030", "big5": "Big5", "cp932": "Shift-JIS", "cp949": "EUC-KR"}
_EUROPEAN: Final = {"cp1252": "Windows-1252", "cp1250": "Windows-1250", "cp1251": "Windows-1251"}
_LABELS: Final = _ASIAN | _EUROPEAN | {"utf-8": UTF8}
# By how much the first must be less chaotic than the second: little where it is Chinese, which nothing else was taken
# for. Measured with charset-normalizer 3.5.2 on 200 random tables of product names for each of the seven encodings and
# of 1 to 30 rows: at a lead of 0.1, three of other encodings were read wrongly, with leads up to 0.106; of the Chinese
# ones, 99 % of those of 10 rows were read, and half of those of 2.
_MIN_LEAD: Final = 0.15
_MIN_LEAD_CHINESE: Final = 0.03
_MAX_CHAOS: Final = 0.2
_MIN_FOREIGN_BYTES: Final = 16
_SAMPLE_BYTES: Final = 2**17
_WINDOW_BYTES: Final = 2**20
_HEADER_BYTES: Final = 2**14
_SHOWN_CHARACTERS: Final = 30
_MAX_CHANCE: Final = 64  # characters; more of them are never valid by chance
_HEADER_LINES: Final = 3  # a declaration of the separator, or a title, may stand above


@dataclass(frozen=True, slots=True)
class Decoded:
    """The text of a file.

    Attributes:
        text: The whole text, without a byte order mark.
        label: The encoding as people call it.
        is_detected: Whether nothing in the file said so.
    """

    text: str
    label: str
    is_detected: bool = False


def decode(
    data: bytes, encoding: str | None = None, *, knows_header: Callable[[str], bool] = lambda start: False
) -> Decoded:
    """Return the text of a file: by its mark, as UTF-8, or by what charset-normalizer finds, if that is clear.

    Args:
        data: The content of the file.
        encoding: What the user says it is, a name that Python knows; None finds out.
        knows_header: Says whether the first lines, decoded, have columns that could only be there by intent. Then no
            statistics are needed.

    Raises:
        TableError: The encoding is not clear, not known, or does not fit.
    """
    if encoding is not None:
        return _decode_as(data, encoding)
    for mark, codec, label in _MARKS:
        if data.startswith(mark):
            return Decoded(_decode_strictly(data[len(mark) :], codec, label), label)
    if b"\0" in data[:4096]:
        raise TableError("binary")
    try:
        text = data.decode("utf-8")
        if not _may_be_chinese(data, text):
            return Decoded(text, UTF8)
    except UnicodeDecodeError as error:
        if error.reason == "unexpected end of data" and error.start > len(data) - 4:
            raise TableError("cut_off") from error
    codec = _detect(data, knows_header)
    return Decoded(_decode_strictly(data, codec, _LABELS[codec]), _LABELS[codec], is_detected=True)


def _may_be_chinese(data: bytes, text: str) -> bool:
    """Say whether UTF-8 is nothing but chance: 一只猫 in GB18030 is three letters of three scripts in UTF-8.

    Then every character has two bytes as GB2312 has them, and they make no words: they are of several scripts, or are
    accented letters without a plain one beside them.
    """
    foreign = [character for character in text if not character.isascii()]
    if not foreign or len(foreign) > _MAX_CHANCE or any(0x7F < byte < 0xA1 for byte in data):
        return False
    if any(len(character.encode()) != 2 for character in foreign):
        return False
    scripts = {unicodedata.name(character, "?").partition(" ")[0] for character in foreign}
    return len(scripts) > 1 or (
        scripts == {"LATIN"} and not re.search(r"[A-Za-z][^\x00-\x7f]|[^\x00-\x7f][A-Za-z]", text)
    )


def _decode_as(data: bytes, encoding: str) -> Decoded:
    try:
        codec = codecs.lookup(encoding).name
        "".encode(codec)  # some that Python looks up make no text
    except (LookupError, ValueError) as error:
        raise TableError("encoding_unknown", encoding=encoding[:40]) from error
    text = _decode_strictly(data, codec, encoding)
    return Decoded(text.removeprefix("\ufeff"), encoding, is_detected=False)


def _decode_strictly(data: bytes, codec: str, label: str) -> str:
    try:
        return data.decode(codec)
    except UnicodeDecodeError as error:
        row = data[: error.start].count(b"\n") + 1
        raise TableError("not_in_encoding", encoding=label, byte=error.start, line=row) from error


def _detect(data: bytes, knows_header: Callable[[str], bool]) -> str:
    lines = [line for line in _take_window(data).splitlines() if not line.isascii()]
    start = b"\n".join(data[:_HEADER_BYTES].splitlines()[:_HEADER_LINES])
    by_header = [codec for codec in _ASIAN if knows_header(start.decode(codec, "replace"))]
    if len(by_header) == 1:
        return by_header[0]
    sample = bytearray()
    for line in lines:
        if sample and len(sample) + len(line) > _SAMPLE_BYTES:
            break
        sample += line + b"\n"
    found = charset_normalizer.from_bytes(
        bytes(sample),
        cp_isolation=list(_ASIAN | _EUROPEAN),
        threshold=1.0,
        preemptive_behaviour=False,
        enable_fallback=False,
    )
    ranked = sorted((match.chaos, match.encoding, str(match)) for match in found)
    foreign_bytes = sum(byte > 0x7F for byte in sample)
    if ranked and ranked[0][0] <= _MAX_CHAOS and foreign_bytes >= _MIN_FOREIGN_BYTES:
        chaos, codec, text = ranked[0]
        lead = _MIN_LEAD_CHINESE if codec == "gb18030" else _MIN_LEAD
        if codec in _ASIAN and all(other[0] >= chaos + lead or other[2] == text for other in ranked[1:]):
            return codec
    candidates = [codec for _, codec, _ in ranked]
    if _may_be_chinese(data, data.decode("utf-8", "replace")):
        candidates.insert(0, "utf-8")
    raise TableError("encoding_unclear", candidates=_show(lines[0], candidates))


def _take_window(data: bytes) -> bytes:
    """Return whole lines from the first one on that is not ASCII, some of a large file, which must not be copied."""
    first = re.search(rb"[\x80-\xff]", data)
    begin = data.rfind(b"\n", 0, first.start()) + 1 if first else 0
    window = data[begin : begin + _WINDOW_BYTES]
    return window.rpartition(b"\n")[0] or window if len(window) == _WINDOW_BYTES else window


def _show(line: bytes, ranked: list[str]) -> str:
    """Return what a line says in the most likely encodings, that of China among them."""
    shown: dict[str, str] = {}
    for codec in dict.fromkeys([*ranked[:2], "gb18030"]):
        text = line.decode(codec, "replace")[:_SHOWN_CHARACTERS]
        if "\ufffd" not in text:
            shown[f"{text!r} ({_LABELS[codec]})"] = codec
    return " or ".join(shown) or repr(line[:_SHOWN_CHARACTERS])

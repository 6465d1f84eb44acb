"""Requests of products that are no Python, as their sources write them, and how those sources read the answer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

FOLDER = Path(__file__).parent
QUERY = "一只猫"
TEXTS = (
    "a cup of coffee",
    "店里的小猫喜欢在窗台上晒太阳。",
    "猎鹰九号火箭竖立在发射台上。",
    "a cat sleeps on the sofa",
)
"""What all bodies ask and rank; the best is not the first."""

Pairs = Literal["documents", "array", "sorted", "counted", "zeros", "order"]


@dataclass(frozen=True)
class Reading:
    """How a sender reads an answer.

    Args:
        entries: Where they are; None: the answer is the list.
        score: The score's name in an entry.
        pairs: How entries and documents are brought together: `documents` looks up each entry's document, `array` makes
            an array as long as the entries and fills it by index, `sorted` sorts the entries by index and pairs by
            position, `counted` wants each document exactly once, `zeros` begins with a zero for each document, and
            `order` takes the entries as they come.
        text: Where an entry holds its document's text, which has to be a string.
        text_type: What a document is declared as, where none is asked for: another one ends the call.
        only: The names that an entry may have: another one ends the call.
        integers: What has to be a whole number outside the entries.
        doubles: Whether a score without a fraction ends the call.
        best_first: Whether the first entry of a document is taken for its best.
    """

    entries: str | None
    score: str
    pairs: Pairs
    text: tuple[str, ...] | None = None
    text_type: Literal["object", "string"] | None = None
    only: tuple[str, ...] | None = None
    integers: tuple[tuple[str, ...], ...] = ()
    doubles: bool = False
    best_first: bool = False


@dataclass(frozen=True)
class Sender:
    """A request, and how its sender reads the answer.

    Args:
        product: Whose it is.
        name: Of the part of the product.
        source: Where both were read.
        points: What points it at a gateway.
        path: Where it is sent to.
        headers: Further ones; KEY stands for the gateway's key.
        body: JSON, with `QUERY` and `TEXTS`.
        reads: How the answer is read.
        same_as: The documents in the gateway's own shape, where they are no texts.
        ignored: Fields and names of models that are not followed, and told of.
    """

    product: str
    name: str
    source: str
    points: str
    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    reads: Reading
    same_as: tuple[Any, ...] = TEXTS
    ignored: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.product}, {self.name}"


def read_senders() -> list[Sender]:
    """Return all of them."""
    return [sender for path in sorted(FOLDER.glob("*.json")) for sender in _read_file(path)]


def _read_file(path: Path) -> Iterator[Sender]:
    content = json.loads(path.read_text(encoding="utf-8"))
    for fields in content["senders"]:
        yield Sender(content["product"], **fields | {"reads": Reading(**fields["reads"])})


def replace_text(value: Any, text: str, by: str) -> Any:
    """Return JSON with another text wherever this one stands."""
    if isinstance(value, dict):
        return {name: replace_text(inner, text, by) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [replace_text(inner, text, by) for inner in value]
    return by if value == text else value


def read_answer(reads: Reading, answer: Any, documents: int) -> list[float]:
    """Return a score for each document, as the sender comes to it.

    Raises:
        LookupError: As its own code would.
        TypeError: Likewise.
        ValueError: Likewise.
    """
    for place in reads.integers:
        _check_type(place, _look_up(answer, place), int)
    entries = answer if reads.entries is None else answer[reads.entries]
    for entry in entries:
        _check_entry(reads, entry)
    return _pair(reads, entries, documents)


def _check_entry(reads: Reading, entry: dict[str, Any]) -> None:
    _check_type(reads.score, entry[reads.score], float if reads.doubles else (int, float))
    if reads.only is not None and (unknown := set(entry) - set(reads.only)):
        raise ValueError(f"unknown fields {sorted(unknown)}")
    if reads.text is not None:
        _check_type(reads.text, _look_up(entry, reads.text), str)
    if reads.text_type is not None and entry.get("document") is not None:
        _check_type("document", entry["document"], str if reads.text_type == "string" else dict)


def _pair(reads: Reading, entries: Sequence[dict[str, Any]], documents: int) -> list[float]:
    scores = [entry[reads.score] for entry in entries]
    if reads.pairs == "order":
        _check_count(len(scores), documents)
        return scores
    indices = [entry["index"] for entry in entries]
    if reads.best_first and scores != sorted(scores, reverse=True):
        raise ValueError(f"the best is not first: {scores}")
    if reads.pairs == "sorted":
        found = [score for _, score in sorted(zip(indices, scores, strict=True))]
        _check_count(len(found), documents)
        return found
    if reads.pairs == "counted" and sorted(indices) != list(range(documents)):
        raise ValueError(f"{documents} documents have results at {indices}")
    length = len(entries) if reads.pairs == "array" else documents
    array: list[float | None] = [0.0 if reads.pairs == "zeros" else None] * length
    for index, score in zip(indices, scores, strict=True):
        array[index] = score
    _check_count(sum(score is not None for score in array), documents)
    return [score for score in array if score is not None]


def _check_count(found: int, expected: int) -> None:
    if found != expected:
        raise ValueError(f"{expected} documents have {found} scores")


def _check_type(place: object, value: Any, expected: type | tuple[type, ...]) -> None:
    if not isinstance(value, expected) or isinstance(value, bool):
        raise TypeError(f"{place} is {value!r}, expected {expected}")


def _look_up(value: Any, place: Sequence[str]) -> Any:
    for name in place:
        value = value[name]
    return value

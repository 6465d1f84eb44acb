"""What goes into a client and what comes out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from lychee_client._errors import LycheeError
from lychee_client._image import Image
from lychee_client.thresholds import Decision

Modality: TypeAlias = Literal["text", "image", "image_text"]


@dataclass(frozen=True, slots=True)
class Text:
    """A text query or document; a plain `str` means the same."""

    text: str


@dataclass(frozen=True, slots=True)
class ImageText:
    """One query or document made of an image and a text."""

    image: Image
    text: str


Input: TypeAlias = str | Text | Image | ImageText


@dataclass(frozen=True, slots=True)
class RerankResult:
    """One ranked document.

    Attributes:
        index: Position in the caller's list of documents.
        relevance_score: In [0, 1]; an order, not a proportion.
        decision: What the call's policy makes of the score.
        modality: Which kind of document it was.
        truncated: True if the text was longer than the model reads, so that its end did not count.
    """

    index: int
    relevance_score: float
    decision: Decision
    modality: Modality
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class DocumentError:
    """One document that could not be ranked.

    Attributes:
        index: Position in the caller's list of documents.
        message: What happened and what to do, for people.
        error: The exception, for programs.
    """

    index: int
    message: str
    error: LycheeError


@dataclass(frozen=True, slots=True)
class Timings:
    """Wall time of one call in milliseconds. The stages overlap, so they add up to more than the total.

    Attributes:
        total_ms: The whole call.
        preprocess_ms: Until the last document was decoded, resized or tokenized.
        encode_query_ms: Until the query's embedding arrived.
        score_documents_ms: From the first document's request to the last one's answer.
    """

    total_ms: float = 0.0
    preprocess_ms: float = 0.0
    encode_query_ms: float = 0.0
    score_documents_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class RerankResponse:
    """The outcome of one call.

    Attributes:
        results: In rank order, best first; equal scores keep the caller's order.
        errors: The documents that could not be ranked, in the caller's order.
        timings: Where the time went.
    """

    results: tuple[RerankResult, ...]
    errors: tuple[DocumentError, ...]
    timings: Timings


def modality_of(value: Input) -> Modality:
    """Return which kind of query or document this is."""
    if isinstance(value, ImageText):
        return "image_text"
    return "image" if isinstance(value, Image) else "text"


def text_of(value: Input) -> str | None:
    """Return the text part, or None."""
    if isinstance(value, str):
        return value
    return None if isinstance(value, Image) else value.text


def image_of(value: Input) -> Image | None:
    """Return the image part, or None."""
    if isinstance(value, ImageText):
        return value.image
    return value if isinstance(value, Image) else None

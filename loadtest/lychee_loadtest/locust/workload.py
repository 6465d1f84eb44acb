"""What the callers ask, and what a right answer is: the same for every transport.

A call has a lane (interactive: 1 query with 1 to 20 documents; bulk: 1 query with 1,000) and a modality (text, image,
or mixed: texts, images and both in one call). Every query is new. Of the documents a stated share is new, so that no
cache can know them; the others come from the example catalogue again and again, as in a shop.
"""

from __future__ import annotations

import itertools
import math
import random
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import gevent  # type: ignore[import-untyped]  # ships no types
from lychee_client import Priority
from lychee_server.examples import read_catalogue

from lychee_loadtest.payloads import fresh_photos, fresh_queries, fresh_texts

__all__ = [
    "GRPC",
    "HTTP",
    "LANES",
    "MODALITIES",
    "REST",
    "TRANSPORTS",
    "Call",
    "Document",
    "Lane",
    "Modality",
    "Ranked",
    "Workload",
    "WorkloadMix",
    "find_problem",
]

Lane: TypeAlias = Priority
Modality: TypeAlias = Literal["text", "image", "mixed"]
Ranked: TypeAlias = Sequence[tuple[int, float]]
"""Index and relevance score of each result, best first."""

GRPC: Final = "gRPC"
HTTP: Final = "HTTP"
REST: Final = "REST"
TRANSPORTS: Final = (GRPC, HTTP, REST)
LANES: Final[tuple[Lane, ...]] = ("interactive", "bulk")
MODALITIES: Final[tuple[Modality, ...]] = ("text", "image", "mixed")
_RUNS: Final = 10**4
_NUMBERS_OF_A_RUN: Final = 10**5  # nine digits at most: the texts stay below 16 tokens, as the catalogue's do


@dataclass(frozen=True, slots=True)
class WorkloadMix:
    """How calls are drawn.

    Attributes:
        text_share: The share of interactive calls that have texts alone.
        image_share: The share of interactive calls that have images alone; the rest are mixed.
        bulk_text_share: The share of bulk calls that have texts alone; the others are mixed.
        fresh_share: The share of documents that no cache has seen.
        max_documents: The most documents that an interactive call has; it has at least 1.
        bulk_documents: How many documents a bulk call has.

    Raises:
        ValueError: A share is not in [0, 1], both shares exceed 1, or a call would have no documents.
    """

    text_share: float = 0.6
    image_share: float = 0.2
    bulk_text_share: float = 1.0
    fresh_share: float = 0.5
    max_documents: int = 20
    bulk_documents: int = 1000

    def __post_init__(self) -> None:
        for name in ("text_share", "image_share", "bulk_text_share", "fresh_share"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ValueError(f"{name} is {value}; expected a number from 0 to 1")
        if self.text_share + self.image_share > 1:
            raise ValueError(
                f"text_share {self.text_share} and image_share {self.image_share} exceed 1 together; what they leave "
                "is the share of mixed calls"
            )
        for name in ("max_documents", "bulk_documents"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least 1")


@dataclass(frozen=True, slots=True)
class Document:
    """A document: a text, a JPEG file, or both."""

    text: str | None = None
    jpeg: bytes | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """One query with its documents."""

    lane: Lane
    modality: Modality
    query: str
    documents: tuple[Document, ...]

    @property
    def name(self) -> str:
        """Lane and modality, under which the statistics know the call."""
        return f"{self.lane}/{self.modality}"


class Workload:
    """Makes calls: the same sequence in each lane for the same seed, but for the numbers that make documents new.

    Args:
        mix: How calls are drawn.
        seed: What the random draws start from.
        worker: The number of the process; each draws other calls.
        run: A number that makes documents new even for a server that has seen another run; None draws one.
    """

    def __init__(self, mix: WorkloadMix, *, seed: int = 0, worker: int = 0, run: int | None = None) -> None:
        self._mix = mix
        self._random = {lane: random.Random(f"{seed}/{worker}/{lane}") for lane in LANES}
        start = ((secrets.randbelow(_RUNS) if run is None else run) + worker) * _NUMBERS_OF_A_RUN
        self._queries = fresh_queries(start)
        self._texts = fresh_texts(start)
        self._photos = fresh_photos(start)
        catalogue = _read_catalogue()
        self._known: dict[Modality, list[Document]] = {
            "text": [document for document in catalogue if document.jpeg is None],
            "image": [document for document in catalogue if document.text is None],
            "mixed": catalogue,
        }

    def make_call(self, lane: Lane) -> Call:
        """Draw the next call of a lane. A new photo takes 2 ms: other greenlets get their turn after each."""
        draw = self._random[lane]
        modality = self._draw_modality(draw, lane)
        count = self._mix.bulk_documents if lane == "bulk" else draw.randint(1, self._mix.max_documents)
        documents = tuple(self._make_document(draw, modality) for _ in range(count))
        return Call(lane, modality, next(self._queries), documents)

    def make_warm_up(self) -> Iterator[Call]:
        """Yield a small call for each modality."""
        for modality in MODALITIES:
            yield Call("interactive", modality, next(self._queries), (self._known[modality][0],))

    def _draw_modality(self, draw: random.Random, lane: Lane) -> Modality:
        share = draw.random()
        if lane == "bulk":
            return "text" if share < self._mix.bulk_text_share else "mixed"
        if share < self._mix.text_share:
            return "text"
        return "image" if share < self._mix.text_share + self._mix.image_share else "mixed"

    def _make_document(self, draw: random.Random, modality: Modality) -> Document:
        if draw.random() >= self._mix.fresh_share:
            return draw.choice(self._known[modality])
        parts = draw.choice(("text", "image", "both")) if modality == "mixed" else modality
        text = None if parts == "image" else next(self._texts)
        if parts == "text":
            return Document(text)
        photo = next(self._photos)
        gevent.sleep(0)
        return Document(text, photo)


def find_problem(call: Call, ranked: Ranked) -> str | None:
    """Say what is wrong with an answer: results missing or unknown, out of order, or no scores; None if nothing is."""
    missing = len(call.documents) - len({index for index, _ in ranked})
    if missing > 0:
        return f"{missing} of {len(call.documents)} documents have no result"
    if sorted(index for index, _ in ranked) != list(range(len(call.documents))):
        return f"results are not those of the {len(call.documents)} documents: some come twice, or were not asked for"
    scores = [score for _, score in ranked]
    if not all(math.isfinite(score) and 0 <= score <= 1 for score in scores):
        return "a score is not in [0, 1]"
    if any(left < right for left, right in itertools.pairwise(scores)):
        return "the results are not in order, best first"
    return None


def _read_catalogue() -> list[Document]:
    documents = read_catalogue().documents
    photos = {path: path.read_bytes() for document in documents if (path := document.photo) is not None}
    return [Document(document.text, photos.get(document.photo) if document.photo else None) for document in documents]

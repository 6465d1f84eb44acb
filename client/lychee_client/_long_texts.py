"""Texts that are longer than what is read: cut, refused, or taken apart before they are sent."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Final

from lychee_client._errors import ConfigurationError, InvalidInputError
from lychee_client._operations import TOKENIZE, in_thread
from lychee_client._options import RerankOptions
from lychee_client._pieces import Piece, Pieces
from lychee_client._pipelines.lanes import Lane
from lychee_client._pipelines.scoring import Outcome, Pipeline, check_input
from lychee_client.chunking import Chunking, check_count
from lychee_client.preprocessing.text import MAX_CHARACTERS, skip_invisible
from lychee_client.preprocessing.windows import FindSurplus, Room, cut_text, find_windows
from lychee_client.types import Chunk, Input, RerankResult, combine, images_of, text_of

# Between two jobs a call notices its deadline, and other calls get the thread.
PIECES_PER_JOB: Final = 64


@dataclass(frozen=True, slots=True)
class TextLimits:
    """How much of the texts of a call is read; see RerankOptions.

    Raises:
        ConfigurationError: A limit is below 1, or an option has another type.
    """

    max_tokens_per_doc: int | None = None
    max_tokens_per_query: int | None = None
    truncation: bool = True
    chunking: Chunking | None = None

    def __post_init__(self) -> None:
        check_count("max_tokens_per_doc", self.max_tokens_per_doc, 1, "None for no limit")
        check_count("max_tokens_per_query", self.max_tokens_per_query, 1, "None for no limit")
        if not isinstance(self.truncation, bool):
            raise ConfigurationError(f"truncation is {self.truncation!r}; expected True or False")
        if self.chunking is not None and not isinstance(self.chunking, Chunking):
            raise ConfigurationError(f"chunking is {self.chunking!r}; expected a Chunking, or None")

    @classmethod
    def make(cls, options: RerankOptions) -> TextLimits:
        """Take the options of a call.

        Raises:
            ConfigurationError: One of them cannot be used.
        """
        return cls(
            options.get("max_tokens_per_doc"),
            options.get("max_tokens_per_query"),
            options.get("truncation", True),
            options.get("chunking"),
        )

    def beside(self, max_tokens: int) -> TextLimits:
        """Return the limits that a model of so many tokens does not keep by itself."""

        def keep(limit: int | None) -> int | None:
            return None if limit is None or limit >= max_tokens else limit

        if self.needs_room:
            return self
        return TextLimits(keep(self.max_tokens_per_doc), keep(self.max_tokens_per_query))

    @property
    def needs_room(self) -> bool:
        """Whether it matters how much the model reads; otherwise its pipeline cuts what is too long."""
        return self.chunking is not None or not self.truncation


@dataclass(slots=True)
class LongTexts:
    """The texts of one call: those that are too long are made to fit.

    Args:
        pipeline: The calls to the model.
        limits: How much is read.

    Attributes:
        pieces: What was sent in place of the documents.
        cut_query: What is left of the query where it lost its end to `max_tokens_per_query`; None where it did not.
    """

    pipeline: Pipeline
    limits: TextLimits
    pieces: Pieces = field(default_factory=Pieces)
    cut_query: Input | None = None

    async def rerank(self, query: Input, documents: Sequence[Input], instruction: str | None, lane: Lane) -> Outcome:
        """Score every document; see Pipeline.

        Raises:
            InvalidInputError: The query cannot be used, or is too long and nothing is to be cut.
            LycheeError: See Pipeline.
        """
        if self.limits == TextLimits():
            return await self.pipeline.rerank(query, documents, instruction, lane)
        query = await self._cut_query(query)
        room = None
        if self.limits.needs_room:
            room = await in_thread(partial(self._find_room, query, instruction), name=TOKENIZE)
        work = self._take_apart(documents, room)
        while await in_thread(partial(_advance, work), name=TOKENIZE):
            pass
        return self.pieces.fold(await self.pipeline.rerank(query, self.pieces.documents, instruction, lane))

    async def _cut_query(self, query: Input) -> Input:
        text, most = text_of(query), self.limits.max_tokens_per_query
        if text is None or most is None:
            return query
        kept = await in_thread(partial(self._cut, "query", text, most, MAX_CHARACTERS), name=TOKENIZE)
        if len(kept) < len(text):
            self.cut_query = combine(kept, *images_of(query))
        return self.read_query(query)

    def read_query(self, query: Input) -> Input:
        """Return what is read of the query."""
        return query if self.cut_query is None else self.cut_query

    def read_documents(self, results: Sequence[RerankResult], documents: Sequence[Input]) -> list[Input]:
        """Return for each result what has its score: a piece of its document, or the document."""
        read = {(piece.index, piece.chunk): piece.document for piece in self.pieces.pieces}
        return [read.get((result.index, result.chunk), documents[result.index]) for result in results]

    def _find_room(self, query: Input, instruction: str | None) -> Room:
        room = self.pipeline.find_room(query, instruction)
        text = text_of(query)
        if not self.limits.truncation and text is not None:
            self._check_surplus("query", text, room.query_surplus)
        return room

    def _take_apart(self, documents: Sequence[Input], room: Room | None) -> Iterator[None]:
        """Make the pieces of documents of any type: what no model reads is left to the pipeline.

        Pauses after each document and each chunk.
        """
        for index, document in enumerate(documents):
            try:
                self.pieces.pieces += yield from self._make_pieces(index, document, room)
            except InvalidInputError as error:
                self.pieces.errors[index] = error
            yield

    def _make_pieces(self, index: int, document: Input, room: Room | None) -> Generator[None, None, list[Piece]]:
        """Return the pieces of one document.

        Raises:
            InvalidInputError: Its text is too long, and nothing is to be cut.
        """
        try:
            check_input(document)
            find_surplus = None if room is None else room.beside(images_of(document))
        except InvalidInputError:  # the pipeline says why
            return [Piece(index, document)]
        text, most, chunking = text_of(document), self.limits.max_tokens_per_doc, self.limits.chunking
        if text is None:
            return [Piece(index, document)]
        if most is not None and self._reaches(most, find_surplus):
            kept = self._cut("document", text, most, len(text) if chunking else MAX_CHARACTERS)
            if len(kept) < len(text):
                self.pieces.truncated.add(index)
                text, document = kept, combine(kept, *images_of(document))
        if find_surplus is not None and chunking is not None:
            return (yield from self._make_chunks(index, document, text, find_surplus, chunking))
        if find_surplus is not None:
            self._check_surplus("document", text, find_surplus(text[:MAX_CHARACTERS]))
        return [Piece(index, document)]

    def _cut(self, what: str, text: str, most: int, characters: int) -> str:
        """Return the beginning of a text, of which only so many characters matter, that has at most so many tokens.

        Raises:
            InvalidInputError: It has more, and nothing is to be cut, or nothing would be left.
        """
        head = text[:characters]
        length = cut_text(head, most, self.pipeline.find_tokens)
        if length == len(head):
            return text
        limit = "max_tokens_per_query" if what == "query" else "max_tokens_per_doc"
        if not self.limits.truncation:
            raise InvalidInputError(self._describe(what, text, most, limit))
        if skip_invisible(text[:length], 0) == length:
            raise InvalidInputError(
                f"the first {most} tokens of the {what} have no visible character; raise {limit}, or leave it out"
            )
        return text[:length]

    def _reaches(self, max_tokens: int, find_surplus: FindSurplus | None) -> bool:
        """Say whether a limit may be lower than what all chunks of a document hold, which a book is not read beyond."""
        chunking = self.limits.chunking
        if find_surplus is None or chunking is None or chunking.max_chunks_per_doc is None:
            return True
        return max_tokens < chunking.max_chunks_per_doc * -find_surplus("")

    def _make_chunks(
        self, index: int, document: Input, text: str, find_surplus: FindSurplus, chunking: Chunking
    ) -> Generator[None, None, list[Piece]]:
        """Return a piece for each chunk; a single one of the document where it fits, or has no room at all.

        Raises:
            InvalidInputError: There are more chunks than are read, and nothing is to be cut.
        """
        pieces: list[Piece] = []
        windows = find_windows(text, chunking.find_overlap, self.pipeline.find_tokens, find_surplus)
        end = 0
        for start, end in islice(windows, chunking.max_chunks_per_doc):
            if (start, end) == (0, len(text)):
                return [Piece(index, document)]
            pieces.append(Piece(index, combine(text[start:end], *images_of(document)), Chunk(start, end)))
            yield
        if not pieces:
            return [Piece(index, document)]
        if skip_invisible(text, end) < len(text):
            if not self.limits.truncation:
                raise InvalidInputError(
                    f"the document has more than {len(pieces)} chunks, which end at character {end} of {len(text)}; "
                    "allow more with max_chunks_per_doc, shorten it, or leave truncation on to have its end left out"
                )
            self.pieces.truncated.add(index)
        return pieces

    def _check_surplus(self, what: str, text: str, surplus: int) -> None:
        """Refuse a text that is too long for the model, given by how many tokens its first MAX_CHARACTERS are.

        Raises:
            InvalidInputError: It is.
        """
        if surplus > 0 or len(text) > MAX_CHARACTERS:
            fits = len(self.pipeline.find_tokens(text[:MAX_CHARACTERS])) - max(0, surplus)
            raise InvalidInputError(self._describe(what, text, max(0, fits), "the model"))

    def _describe(self, what: str, text: str, fits: int, limit: str) -> str:
        count = len(self.pipeline.find_tokens(text[:MAX_CHARACTERS]))
        more = "more than " if len(text) > MAX_CHARACTERS else ""
        advice = "" if what == "query" else ", read it in parts with chunking"
        prefix = "query: " if what == "query" else ""
        return (
            f"{prefix}the {what} has {more}{count} tokens, of which {fits} fit ({limit}); shorten it{advice}, or leave "
            "truncation on to have its end cut off"
        )


def _advance(work: Iterator[None]) -> bool:
    """Do a part of the work; return whether some may be left."""
    return sum(1 for _ in islice(work, PIECES_PER_JOB)) == PIECES_PER_JOB

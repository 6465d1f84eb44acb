"""Documents that are read in pieces, each scored as a document of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from lychee_client._errors import InvalidOutputError, LycheeError
from lychee_client._pipelines.scoring import Outcome, Score
from lychee_client.types import Chunk, Input

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Piece:
    """What is sent in place of a document, or of a part of it.

    Attributes:
        index: The position of the document in the caller's list.
        document: The piece, as a document.
        chunk: Where it stands in the document's text; None where it is the document, or its beginning.
    """

    index: int
    document: Input
    chunk: Chunk | None = None


@dataclass(slots=True)
class Pieces:
    """The pieces of a call's documents.

    Attributes:
        pieces: The pieces, those of a document in the order of its text.
        truncated: The indexes of the documents of which the end is in no piece.
        errors: The documents that have no pieces, and why.
    """

    pieces: list[Piece] = field(default_factory=list)
    truncated: set[int] = field(default_factory=set)
    errors: dict[int, LycheeError] = field(default_factory=dict)

    @property
    def documents(self) -> list[Input]:
        """What is to be scored: a document for each piece."""
        return [piece.document for piece in self.pieces]

    def by_document(self, found: Mapping[int, T]) -> dict[int, list[tuple[Piece, T]]]:
        """Return what was found for the pieces, by their positions, as a list for each document that has something."""
        documents: dict[int, list[tuple[Piece, T]]] = {}
        for position in sorted(found):
            piece = self.pieces[position]
            documents.setdefault(piece.index, []).append((piece, found[position]))
        return documents

    def fold(self, outcome: Outcome) -> Outcome:
        """Return what became of the documents, given what became of their pieces.

        A document has the score of its best piece by logit, the first of equal ones. It fails where all of its pieces
        did, and where the model gave no number for one: that one could have been the best. Where a piece failed for
        another reason, the document is `truncated`.
        """
        folded = replace(outcome, scores={}, errors={})
        errors = self.by_document(outcome.errors)
        for index, scores in self.by_document(outcome.scores).items():
            piece, score = max(scores, key=lambda item: item[1].logit)
            is_cut = index in self.truncated or index in errors
            folded.scores[index] = _place(score, piece.chunk, truncated=is_cut)
        for index, failed in errors.items():
            worst = next((error for _, error in failed if isinstance(error, InvalidOutputError)), None)
            if worst is not None or index not in folded.scores:
                folded.scores.pop(index, None)
                folded.fail(index, worst or failed[0][1])
        for index, error in self.errors.items():
            folded.fail(index, error)
        folded.unscored_tokens += outcome.tokens_read - folded.tokens_read
        return folded


def _place(score: Score, chunk: Chunk | None, *, truncated: bool) -> Score:
    tokens = score.tokens
    if truncated and tokens is not None:
        tokens = replace(tokens, truncated=True)
    return replace(score, tokens=tokens, chunk=chunk)

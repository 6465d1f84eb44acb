"""What a call leaves for the log and the metrics while it is worked on.

The middleware opens the notes of a request, whoever works on it fills them in, and the middleware writes them down when
the answer is out.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final

from lychee_client import InvalidInputError
from lychee_client.types import Input, modality_of, text_of

MAX_LOGGED_CHARACTERS: Final = 1000


@dataclass(slots=True)
class CallNotes:
    """What is known of one request.

    Attributes:
        documents: How many the caller sent.
        modality: What the documents are: "text", "image", "image_text" or "mixed"; None: the request is no call.
        model: The id of the model that scored.
        version: The version of its export, for traces.
        label: The name of the model that was chosen, for the metrics; empty: the request is about none.
        served: The same for the log and for traces, where there are several models.
        dialect: Whose clients' shapes the request and its answer have; None: the gateway's own.
        errors: How many documents could not be ranked.
        error_type: The class of the error that the caller got.
        reason: Why the server could not answer; quotes nothing that the caller sent.
        warnings: How many warnings the answer holds.
        ranking_id: Of a ranking in an experiment, as its events name it.
        ignored: The names of unknown fields and keys, as a header can hold them; never logged.
        texts: Query and documents, in the log only where the settings ask for it; never images or keys.
    """

    documents: int | None = None
    modality: str | None = None
    model: str | None = None
    version: str | None = None
    label: str = ""
    served: str | None = None
    dialect: str | None = None
    errors: int | None = None
    error_type: str | None = None
    reason: str | None = None
    warnings: int | None = None
    ranking_id: str | None = None
    ignored: str = ""
    texts: dict[str, Any] = field(default_factory=dict)

    def choose(self, name: str, *, is_told: bool) -> None:
        """Note which model the request is about.

        Args:
            name: Of the model.
            is_told: Whether the log says it: not where there is no other one.
        """
        self.label = name
        self.served = name if is_told else None

    def note_call(self, query: Input, documents: Sequence[Input | InvalidInputError], *, content: bool) -> None:
        """Note what a call asks.

        Args:
            query: The query.
            documents: The documents; one that has been refused already is the error that says why.
            content: Whether to keep the texts, each cut to a thousand characters.
        """
        accepted = [document for document in documents if not isinstance(document, InvalidInputError)]
        modalities = {modality_of(document) for document in accepted}
        self.documents = len(documents)
        self.modality = "mixed" if len(modalities) > 1 else next(iter(modalities), None)
        if content:
            self.texts = {"query": _cut(text_of(query)), "texts": [_cut(text_of(each)) for each in accepted]}

    def fields(self, *, content: bool) -> dict[str, Any]:
        """Return what is known as fields of a log line.

        Args:
            content: Whether to include the texts.
        """
        known = {
            "documents": self.documents,
            "modality": self.modality,
            "model": self.model,
            "served": self.served,
            "dialect": self.dialect,
            "errors": self.errors,
            "warnings": self.warnings or None,
            "error_type": self.error_type,
            "reason": self.reason,
            "ranking_id": self.ranking_id,
        }
        return {name: value for name, value in known.items() if value is not None} | (self.texts if content else {})


_CURRENT: ContextVar[CallNotes | None] = ContextVar("lychee_gateway_call_notes", default=None)


def open_notes() -> CallNotes:
    """Begin the notes of the request that is being answered here."""
    notes = CallNotes()
    _CURRENT.set(notes)
    return notes


def current_notes() -> CallNotes:
    """Return the notes of the request that is being answered here; outside of one, notes that nobody reads."""
    return _CURRENT.get() or CallNotes()


def _cut(text: str | None) -> str | None:
    return None if text is None else text[:MAX_LOGGED_CHARACTERS]

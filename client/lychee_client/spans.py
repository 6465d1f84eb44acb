"""The sentences of a document that match a query: how to ask for them, and what one is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from lychee_client._errors import ConfigurationError

SpansMode: TypeAlias = Literal["enabled", "disabled"]

MODES: Final = ("enabled", "disabled")
DEFAULT_THRESHOLD: Final = 0.1


@dataclass(frozen=True, slots=True)
class RelevantSpans:
    """Asks for the sentences of each returned document's text that match the query.

    Args:
        mode: "enabled", or "disabled", which is the same as not asking.
        threshold: The lowest relevance score, from 0 to 1, that a sentence may have.
        max_spans: At most so many sentences per document, the best ones. None returns all.

    Raises:
        ConfigurationError: A value is none of these.
    """

    mode: SpansMode = "enabled"
    threshold: float = DEFAULT_THRESHOLD
    max_spans: int | None = None

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ConfigurationError(f"relevant_spans.mode is {self.mode!r}; expected one of {', '.join(MODES)}")
        if not 0 <= self.threshold <= 1:
            raise ConfigurationError(f"relevant_spans.threshold is {self.threshold}; expected 0 to 1")
        if self.max_spans is not None and self.max_spans < 1:
            raise ConfigurationError(
                f"relevant_spans.max_spans is {self.max_spans}; expected at least 1, or None for all"
            )


@dataclass(frozen=True, slots=True)
class RelevantSpan:
    """One sentence of a document's text: `text[start:end]`.

    Attributes:
        start: The position of its first character, in Unicode code points.
        end: The position after its last character, likewise.
        score: The relevance score of the sentence alone, in [0, 1].
        logit: The score before the sigmoid; spans are ordered by it.
    """

    start: int
    end: int
    score: float
    logit: float


def check_spans(spans: object) -> RelevantSpans | None:
    """Return what a call asks for; None: for no spans.

    Raises:
        ConfigurationError: It is no RelevantSpans.
    """
    if spans is None:
        return None
    if not isinstance(spans, RelevantSpans):
        raise ConfigurationError(
            f"relevant_spans is a {type(spans).__name__}; expected a RelevantSpans, such as RelevantSpans(max_spans=3)"
        )
    return spans if spans.mode == "enabled" else None

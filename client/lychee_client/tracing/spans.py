"""Spans, in terms of no library. Where nobody listens, a silent one stands in their place and costs nothing.

Spans are handed on by argument, never by a variable of the thread or task: a call runs in several threads.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType, TracebackType
from typing import Final, Literal, Protocol, TypeAlias

Value: TypeAlias = "str | bool | int | float"
Attributes: TypeAlias = Mapping[str, Value]
Kind: TypeAlias = Literal["internal", "client"]

NOTHING: Final[Mapping[str, str]] = MappingProxyType({})
GIVEN_UP: Final = "lychee.given_up"  # an attribute: nobody waited for the outcome any more


class Span(Protocol):
    """A piece of work, from when it was begun until its end. Safe to use from several threads.

    No attribute holds what a caller sent: counts, names of models, and words that this project chose.
    """

    @property
    def is_sampled(self) -> bool:
        """Whether anybody will see it; otherwise its parts need not be told."""

    @property
    def ids(self) -> tuple[str, str] | None:
        """The ids of its trace and its own, 32 and 16 hexadecimal digits; None: it has none."""

    def begin(self, name: str, kind: Kind = "internal", attributes: Attributes = NOTHING) -> Span:
        """Begin a part of it; a "client" waits for another server."""

    def add(self, attributes: Attributes) -> None:
        """Tell more of it."""

    def rename(self, name: str) -> None:
        """Give it another name: what a request is for is not known from the beginning."""

    def fail(self, error: str) -> None:
        """Say of which type what went wrong is. Messages of errors stay here: they may quote what the caller sent."""

    def end(self) -> None:
        """End it, once."""

    def headers(self) -> Mapping[str, str]:
        """Return the headers by which a server makes its own spans parts of this one."""

    def __enter__(self) -> Span:
        """Do nothing."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End it, by the type of the exception where there is one."""


class Tracer(Protocol):
    """Begins the spans of calls."""

    def begin(self, name: str) -> Span:
        """Begin the span of a call, as a part of what its caller is doing; called where the caller is."""


class SilentSpan:
    """A span that nobody sees."""

    is_sampled: Final = False
    ids: Final = None

    def begin(self, name: str, kind: Kind = "internal", attributes: Attributes = NOTHING) -> Span:
        """See Span."""
        return self

    def add(self, attributes: Attributes) -> None:
        """See Span."""

    def rename(self, name: str) -> None:
        """See Span."""

    def fail(self, error: str) -> None:
        """See Span."""

    def end(self) -> None:
        """See Span."""

    def headers(self) -> Mapping[str, str]:
        """See Span."""
        return NOTHING

    def __enter__(self) -> Span:
        """See Span."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """See Span."""


SILENT: Final[Span] = SilentSpan()


@dataclass(slots=True)
class RequestTrace:
    """What one request of a call belongs to, however often it is sent.

    Attributes:
        span: The span of the call.
        attempts: Counts how often it was sent, from 1.
    """

    span: Span
    attempts: Iterator[int] = field(default_factory=lambda: itertools.count(1))

"""The language between the pure pipelines and the shells that do the work.

A plan is a generator: it yields operations, receives their outcome, and returns the result of the whole call. It
reads and sends nothing itself, so the same plan serves every shell and every transport.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar, cast

from lychee_client._transports.base import InferRequest, InferResponse

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Handle(Generic[T]):
    """Work that a shell has started.

    Attributes:
        future: The shell's own object; plans do not look at it.
    """

    future: Any


@dataclass(frozen=True, slots=True)
class Send:
    """Start a request. Outcome: a handle. May wait while too many requests are in flight."""

    request: InferRequest


@dataclass(frozen=True, slots=True)
class Run:
    """Start work that would block: decoding, tokenizing, the disk. Outcome: a handle."""

    job: Callable[[], object]


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait for a handle. Outcome: its result; or its exception, thrown into the plan."""

    handle: Handle[Any]


Operation: TypeAlias = Send | Run | Wait
Plan: TypeAlias = Generator[Operation, Any, T]


def send(request: InferRequest) -> Plan[Handle[InferResponse]]:
    """Yield Send, typed."""
    return cast(Handle[InferResponse], (yield Send(request)))


def run(job: Callable[[], T]) -> Plan[Handle[T]]:
    """Yield Run, typed."""
    return cast(Handle[T], (yield Run(job)))


def wait(handle: Handle[T]) -> Plan[T]:
    """Yield Wait, typed."""
    return cast(T, (yield Wait(handle)))

"""What SIGTERM does to a command that has something to stop or to remove on the way out."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

__all__ = ["EXIT_SIGTERM", "raise_on_sigterm"]

EXIT_SIGTERM: Final = 128 + signal.SIGTERM


@contextmanager
def raise_on_sigterm() -> Iterator[None]:
    """Turn SIGTERM into an exception, as Ctrl-C is one; on the way out both signals have their old handlers again."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(EXIT_SIGTERM)

    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)

"""One measured number and its target."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Measurement"]


@dataclass(frozen=True)
class Measurement:
    """One line of a table; `target` is None where a line only explains another."""

    name: str
    measured: float
    unit: str
    target: float | None = None
    at_least: bool = False

    @property
    def met(self) -> bool:
        """Whether the target is met; a line without a target meets it."""
        if self.target is None:
            return True
        return self.measured >= self.target if self.at_least else self.measured <= self.target

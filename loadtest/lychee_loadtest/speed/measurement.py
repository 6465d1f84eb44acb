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

    def __str__(self) -> str:
        """Write the line: name, number, unit, target and verdict."""
        target = f"{'>=' if self.at_least else '<='} {self.target:g}" if self.target is not None else ""
        verdict = "" if self.target is None else "met" if self.met else "MISSED"
        return f"{self.name:58} {self.measured:8.2f} {self.unit:3} {target:>8}  {verdict}"

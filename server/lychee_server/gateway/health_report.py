"""What one look at the health of gateway and model server finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Status: TypeAlias = Literal["ok", "degraded", "unavailable"]


@dataclass(frozen=True, slots=True)
class HealthReport:
    """The outcome of one look.

    Attributes:
        status: What `GET /health` says.
        latency_ms: Wall time of the scored pair; None where none was scored.
        reason: Why it is not "ok", for people; None where it is.
    """

    status: Status
    latency_ms: float | None = None
    reason: str | None = None

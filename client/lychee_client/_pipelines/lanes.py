"""How much of the server one call may take, so that callers do not starve each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from lychee_client.types import Priority


@dataclass(frozen=True, slots=True)
class Lane:
    """How much of the server one call may take.

    Attributes:
        is_patient: Whether the call sends one request after the other, each of few texts, so that others' requests come
            in between (see Pace). Otherwise each request holds as many texts as fit.
        max_rows_in_flight: The most texts, images or pairs that have been sent and are not yet answered.
    """

    is_patient: bool
    max_rows_in_flight: int


# Interactive: two of the server's largest batches, so that it never waits for the client; more would only hold memory,
# and be computed in vain when the call is cancelled. Bulk: one small request at a time, so that an interactive request
# that comes in between waits for little work. Measured: see docs/benchmarks/comparison.md.
LANES: Final[dict[Priority, Lane]] = {
    "interactive": Lane(is_patient=False, max_rows_in_flight=64),
    "bulk": Lane(is_patient=True, max_rows_in_flight=1),
}

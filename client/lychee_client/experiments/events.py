"""What users do with a ranking."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias, TypedDict, get_args

EventKind: TypeAlias = Literal["click", "dwell", "conversion"]

EVENT_KINDS: Final[tuple[EventKind, ...]] = get_args(EventKind)
# 30 years of reading; anything above is a mistake, and one of it would drown all other users.
MAX_EVENT_VALUE: Final = 1e9


class _EventType(TypedDict):
    type: EventKind


class FeedbackEvent(_EventType, total=False):
    """Something that a user did with a ranking; `type` must be given.

    Attributes:
        type: "click", "dwell" (reading a document) or "conversion" (buying, subscribing, solving the problem).
        index: The document's position in the call's list.
        dwell_s: The seconds of reading; "dwell" needs it.
        value: What a conversion was worth.
        at: When it happened, as ISO 8601. The default is now.
        id: The event's id: sent again, it counts once.
    """

    index: int
    dwell_s: float
    value: float
    at: str
    id: str

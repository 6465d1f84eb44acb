"""The shapes of `POST /v1/feedback`: what a user did with a ranking."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final

from lychee_client.experiments.events import MAX_EVENT_VALUE, EventKind
from pydantic import BaseModel, Field, model_validator

from lychee_server.gateway.lax_types import NUMBER, WHOLE, LaxModel

MAX_EVENTS: Final = 1000
MAX_ID_CHARACTERS: Final = 128
_Amount = Annotated[float, Field(ge=0, le=MAX_EVENT_VALUE), NUMBER]


class FeedbackEvent(LaxModel):
    """One thing that a user did."""

    type: EventKind = Field(description="A click on a document, the time spent reading it, or what was hoped for.")
    index: Annotated[int, Field(ge=0, le=MAX_EVENT_VALUE), WHOLE] | None = Field(
        None, description="Of the document, as the result had it."
    )
    dwell_s: _Amount | None = Field(None, description="Seconds of reading; `dwell` needs it.")
    value: _Amount | None = Field(None, description="What a conversion was worth, such as its price.")
    at: datetime | None = Field(None, description="When it happened; default: now.")
    id: Annotated[str, Field(max_length=MAX_ID_CHARACTERS)] | None = Field(
        None, description="Of the event: sent again, it counts once."
    )

    @model_validator(mode="after")
    def _need_seconds(self) -> FeedbackEvent:
        if self.type == "dwell" and self.dwell_s is None:
            raise ValueError("dwell_s, the seconds, where type is dwell")
        return self

    def describe(self) -> dict[str, Any]:
        """Return the fields of a record."""
        told = {
            "event": self.type,
            "value": self.dwell_s if self.type == "dwell" else 1.0,
            "index": self.index,
            "worth": self.value if self.type == "conversion" else None,
            "happened_at": None if self.at is None else self.at.isoformat(),
            "event_id": self.id,
        }
        return {name: value for name, value in told.items() if value is not None}


class FeedbackRequest(LaxModel):
    """What a user did with one ranking."""

    ranking_id: str = Field(description="As the ranking's answer had it.", min_length=1, max_length=MAX_ID_CHARACTERS)
    events: list[FeedbackEvent] = Field(description="In any order.", min_length=1, max_length=MAX_EVENTS)


class FeedbackAnswer(BaseModel):
    """What was written down."""

    accepted: int = Field(description="How many events were written down.")
    known: bool = Field(description="False: the ranking is none of this experiment's; such events count for no arm.")
    warnings: list[str] = Field(description="What was ignored.")


FEEDBACK_EXAMPLES: Final[dict[str, Any]] = {
    "events": {
        "summary": "A click, twelve seconds of reading, and a purchase",
        "value": {
            "ranking_id": "0f1e2d3c4b5a69788796a5b4c3d2e1f0",
            "events": [
                {"type": "click", "index": 3, "id": "e-1"},
                {"type": "dwell", "index": 3, "dwell_s": 12.5},
                {"type": "conversion", "index": 3, "value": 9.9, "at": "2027-01-31T12:00:00Z"},
            ],
        },
    }
}

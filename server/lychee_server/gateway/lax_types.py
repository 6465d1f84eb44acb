"""Types of a request's values, as JSON clients send them: `2.0` and `"2"` are numbers, `"true"` is true.

What has no such meaning is still an error: 2.5 and `true` are no whole numbers, "abc" and NaN no numbers.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Final, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator


def _refuse_switch(expected: str, value: Any) -> Any:
    """Return what is no boolean; pydantic would take true for 1."""
    if isinstance(value, bool):
        raise ValueError(expected)
    return value


# They stand behind the limits of a number: JSON's schema would not show limits that stand behind them.
WHOLE: Final = BeforeValidator(partial(_refuse_switch, "a whole number"))
NUMBER: Final = BeforeValidator(partial(_refuse_switch, "a number"))
Natural: TypeAlias = Annotated[int, Field(ge=0), WHOLE]
Count: TypeAlias = Annotated[int, Field(ge=1), WHOLE]
Unit: TypeAlias = Annotated[float, Field(ge=0, le=1), NUMBER]
Positive: TypeAlias = Annotated[float, Field(gt=0), NUMBER]


class LaxModel(BaseModel):
    """An object of a request. null means the default wherever there is one; what is not known is kept as an extra."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _leave_out_nulls(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        required = {name for name, field in cls.model_fields.items() if field.is_required()}
        return {
            name.encode("utf-8", "replace").decode(): each  # pydantic refuses names with lone surrogates
            for name, each in value.items()
            if each is not None or name in required
        }

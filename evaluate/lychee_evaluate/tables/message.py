"""What is said about a table: for programs by kind and values, for people in each language of the page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from lychee_client import ConfigurationError, InvalidInputError

from lychee_evaluate.tables.wording import WORDINGS

Value: TypeAlias = str | int | float
LANGUAGES: Final = ("en", "zh")


@dataclass(frozen=True, slots=True)
class Message:
    """One thing to say.

    Attributes:
        kind: A key of WORDINGS.
        values: What the {placeholders} of its wordings stand for.
    """

    kind: str
    values: Mapping[str, Value] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.say("en")

    def say(self, language: str) -> str:
        """Return the wording in "en" or "zh"."""
        return WORDINGS[self.kind][language].format(**self.values)

    def to_json(self) -> dict[str, Any]:
        """Return kind, values and the wordings by language."""
        return {
            "kind": self.kind,
            "values": dict(self.values),
            "message": {language: self.say(language) for language in LANGUAGES},
        }


class TableError(ConfigurationError):
    """A table cannot be used.

    Attributes:
        message: Why.
        file: The name of the file, once it is known.
    """

    def __init__(self, kind: str, **values: Value) -> None:
        self.message = Message(kind, values)
        self.file = ""
        super().__init__(str(self.message))

    def __str__(self) -> str:
        return f"{self.file}: {self.message}" if self.file else str(self.message)


class RowError(InvalidInputError):
    """One row of a table cannot be used.

    Attributes:
        message: Why.
    """

    def __init__(self, kind: str, **values: Value) -> None:
        self.message = Message(kind, values)
        super().__init__(str(self.message))

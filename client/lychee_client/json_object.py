"""A JSON object that is read strictly: every key once, of the right type, and none left over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final, TypeVar

from lychee_client._errors import ConfigurationError

MAX_SIZE_BYTES: Final = 16 * 2**20

T = TypeVar("T")


class JsonObject:
    """The keys of one object, taken one by one.

    Args:
        data: The object.
        prefix: What messages put before every key, for example "model.".
    """

    def __init__(self, data: dict[str, Any], prefix: str = "") -> None:
        self._data = dict(data)
        self._prefix = prefix

    def has(self, key: str) -> bool:
        """Say whether a key is there and was not taken."""
        return key in self._data

    def take(self, key: str, kind: type[T]) -> T:
        """Return a value of this type; true and false are no integers.

        Raises:
            ConfigurationError: The key is missing or has another type.
        """
        if key not in self._data:
            raise ConfigurationError(f"the key {self._prefix}{key} is missing")
        value = self._data.pop(key)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise ConfigurationError(f"{self._prefix}{key} is {value!r}; expected {kind.__name__}")
        return value

    def take_optional(self, key: str, kind: type[T]) -> T | None:
        """Return a value of this type, or None for null; the key must be there.

        Raises:
            ConfigurationError: The key is missing or has another type.
        """
        if key in self._data and self._data[key] is None:
            del self._data[key]
            return None
        return self.take(key, kind)

    def take_object(self, key: str) -> JsonObject:
        """Return an object within the object.

        Raises:
            ConfigurationError: The key is missing or no object.
        """
        return JsonObject(self.take(key, dict), f"{self._prefix}{key}.")

    def take_number(self, key: str) -> float:
        """Return a finite number.

        Raises:
            ConfigurationError: The key is missing or no finite number.
        """
        return self._to_number(key, self.take(key, object))

    def take_numbers(self, key: str) -> tuple[float, ...]:
        """Return an array of finite numbers.

        Raises:
            ConfigurationError: The key is missing, or something in it is no finite number.
        """
        values: list[object] = self.take(key, list)
        return tuple(self._to_number(key, value) for value in values)

    def take_texts(self, key: str) -> dict[str, str]:
        """Return an object of strings by name.

        Raises:
            ConfigurationError: The key is missing, or something in it is no string.
        """
        texts: dict[str, str] = self.take(key, dict)
        for name, text in texts.items():
            if not isinstance(text, str):
                raise ConfigurationError(f"{self._prefix}{key}.{name} is {text!r}; expected a string")
        return texts

    def end(self) -> None:
        """Make sure that nothing is left.

        Raises:
            ConfigurationError: A key was not taken.
        """
        for key in self._data:
            raise ConfigurationError(f"the key {self._prefix}{key} is unknown")

    def _to_number(self, key: str, value: object) -> float:
        # 1e999 is valid JSON and becomes infinity; an integer may be too large for a float.
        if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300:
            return float(value)
        raise ConfigurationError(f"{self._prefix}{key} is {value!r}; expected a finite number")


def read_json_object(path: Path) -> JsonObject:
    """Read a file that holds one JSON object.

    Raises:
        ConfigurationError: It cannot be read, is too large, or is not JSON in UTF-8; or a key is there twice.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_SIZE_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(f"it cannot be read: {error.strerror or error}") from error
    if len(content) > MAX_SIZE_BYTES:
        raise ConfigurationError(f"it is larger than {MAX_SIZE_BYTES} bytes")
    try:
        data = json.loads(content.decode("utf-8"), object_pairs_hook=_unique_keys)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"it is not JSON: {error}") from error
    if not isinstance(data, dict):
        raise ConfigurationError(f"it holds a {type(data).__name__}, expected an object")
    return JsonObject(data)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)} is there twice")
    return data

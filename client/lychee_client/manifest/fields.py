"""One value of the server's manifest: there, and of the right type."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from lychee_client._errors import ContractError

T = TypeVar("T")


def get_value(data: Mapping[str, Any], key: str, kind: type[T], prefix: str = "") -> T:
    """Return a value of this type; an integer passes as a float, true and false pass as nothing else.

    Args:
        data: An object of the manifest.
        key: The key of the value.
        kind: The type that the value must have.
        prefix: Where in the manifest the object is, for example "text.".

    Raises:
        ContractError: The key is missing or has another type.
    """
    if key not in data:
        raise ContractError(f"the server's manifest has no {prefix}{key}; export the model again")
    value = data[key]
    if kind is float and isinstance(value, int):
        value = float(value)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ContractError(
            f"the manifest's {prefix}{key} is {value!r}, expected {kind.__name__}; export the model again"
        )
    return value


def get_positive(data: Mapping[str, Any], key: str, prefix: str = "") -> int:
    """Return an integer that is at least 1.

    Raises:
        ContractError: The key is missing or has another type or value.
    """
    value = get_value(data, key, int, prefix)
    if value < 1:
        raise ContractError(f"the manifest's {prefix}{key} is {value}, expected at least 1; export the model again")
    return value


def get_ascending(data: Mapping[str, Any], key: str, prefix: str = "") -> tuple[int, ...]:
    """Return ascending integers, all at least 1, at least one of them.

    Raises:
        ContractError: The key is missing or holds anything else.
    """
    values = get_value(data, key, list, prefix)
    integers = all(isinstance(value, int) and not isinstance(value, bool) for value in values)
    if not values or not integers or values != sorted(set(values)) or values[0] < 1:
        raise ContractError(
            f"the manifest's {prefix}{key} is {values}; expected ascending sizes from 1; export the model again"
        )
    return tuple(values)


def get_strings(data: Mapping[str, Any], key: str, prefix: str = "") -> tuple[str, ...]:
    """Return an array of strings.

    Raises:
        ContractError: The key is missing or holds anything else.
    """
    values = get_value(data, key, list, prefix)
    for value in values:
        if not isinstance(value, str):
            raise ContractError(
                f"the manifest's {prefix}{key} holds {value!r}, expected strings; export the model again"
            )
    return tuple(values)

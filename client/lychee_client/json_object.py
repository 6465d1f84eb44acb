"""JSON objects that are read strictly: into a Struct, every key once, every value as its field says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from lychee_client._errors import ConfigurationError

MAX_SIZE_BYTES: Final = 16 * 2**20

T = TypeVar("T", bound=msgspec.Struct)

_MESSAGE: Final = re.compile(r"(?P<what>.*?)(?: - at `\$\.?(?P<path>.*)`)?", re.DOTALL)
_FIELD: Final = re.compile(r"Object (?:missing required|contains unknown) field `(?P<name>.*)`")
_STEP: Final = re.compile(r"([^.\[\]]+)|\[(\d+)\]")


def read_object(path: Path, kind: type[T]) -> T:
    """Read a file that holds one JSON object.

    Raises:
        ConfigurationError: It cannot be read, is too large, is not UTF-8, or `parse_object` refuses what it holds.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_SIZE_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(f"it cannot be read: {error.strerror or error}") from error
    if len(content) > MAX_SIZE_BYTES:
        raise ConfigurationError(f"it is larger than {MAX_SIZE_BYTES} bytes")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"it is not UTF-8: {error.reason} at byte {error.start}; save it as UTF-8") from error
    return parse_object(text, kind)


def parse_object(text: str, kind: type[T]) -> T:
    """Read a text that holds one JSON object.

    Args:
        text: The text.
        kind: What the object must be. The version of the format, where it has one, is the Struct's tag.

    Raises:
        ConfigurationError: It is not JSON, a key is there twice, the version is another, or a value is missing or not
            what its field says; the message has the key, the value seen and what was expected.
    """
    try:
        data = json.loads(text, object_pairs_hook=_unique_keys)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"it is not JSON: {error}") from error
    config = kind.__struct_config__
    if isinstance(data, dict) and config.tag_field is not None:
        version = data.get(config.tag_field)
        if version is None:
            raise ConfigurationError(f"the key {config.tag_field} is missing")
        if version != config.tag or isinstance(version, bool):
            raise ConfigurationError(f"{config.tag_field} is {version!r}, this client reads {config.tag}")
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        raise ConfigurationError(_describe(error, data)) from error


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)} is there twice")
    return data


def _describe(error: msgspec.ValidationError, data: Any) -> str:
    """Say what is wrong, with the value seen: msgspec itself says only where it is, and what was expected."""
    matched = _MESSAGE.fullmatch(str(error))
    what, path = (matched["what"], matched["path"] or "") if matched else (str(error), "")
    if field := _FIELD.fullmatch(what):
        state = "missing" if "missing" in what else "unknown"
        return f"the key {path}{'.' if path else ''}{field['name']} is {state}"
    if not what.startswith(("Expected ", "Invalid ", "Number ")):
        return what  # of a __post_init__, which names its fields itself
    for key, index in _STEP.findall(path.partition("[...]")[0]):
        data = data[int(index) if index else key]
    return f"{path or 'it'} is {data!r:.200}; {what[0].lower()}{what[1:]}"

"""Files with many calls for `lychee rerank --calls`: one JSON object per line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from lychee_client._errors import ConfigurationError
from lychee_client.preprocessing.image import Image
from lychee_client.types import Input, Text, combine

_KEYS: Final = {"query", "documents"}


def count_calls(path: Path) -> int:
    """Return how many calls a file holds.

    Raises:
        ConfigurationError: It cannot be read.
    """
    try:
        with path.open("rb") as file:
            return sum(bool(line.strip()) for line in file)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}; check the path") from error


def read_calls(path: Path) -> Iterator[tuple[Input, list[Input]]]:
    """Yield query and documents of each line; blank lines are passed over, and only one line is held at a time.

    A line is `{"query": Q, "documents": [D, ...]}`; Q and each D are a string or an object with "text", "image" (a
    path relative to the file) or both. "images" in the place of "image" is a list of paths.

    Raises:
        ConfigurationError: A line is not such an object; the message has its number.
    """
    with path.open(encoding="utf-8-sig") as file:
        try:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield _parse_call(line, f"{path}, line {number}", path.parent)
        except UnicodeDecodeError as error:
            raise ConfigurationError(f"{path} is not UTF-8: {error.reason}; convert it") from error


def _parse_call(line: str, where: str, folder: Path) -> tuple[Input, list[Input]]:
    try:
        call = json.loads(line)
    except ValueError as error:
        raise ConfigurationError(f"{where} is not JSON: {error}") from error
    if not isinstance(call, dict) or set(call) != _KEYS or not isinstance(call["documents"], list):
        raise ConfigurationError(f'{where} is {line[:60]!r}; expected {{"query": ..., "documents": [...]}}')
    documents = [_parse_input(document, where, folder) for document in call["documents"]]
    return _parse_input(call["query"], where, folder), documents


def _parse_input(value: object, where: str, folder: Path) -> Input:
    if isinstance(value, str):
        return Text(value)
    if isinstance(value, dict) and (set(value) <= {"text", "image"} or set(value) <= {"text", "images"}):
        text, image = value.get("text"), value.get("image")
        paths = value.get("images", [] if image is None else [image])
        given = [*paths, *([] if text is None else [text])] if isinstance(paths, list) else []
        if given and all(isinstance(part, str) for part in given):
            return combine(text, *(Image.from_path(folder / path) for path in paths))
    raise ConfigurationError(f'{where} has {value!r}; expected a string or {{"text": ..., "image": "PATH"}}')

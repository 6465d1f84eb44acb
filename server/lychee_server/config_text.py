"""The text of a `config.pbtxt`, with the line of every key, checked against Triton's protobuf schema."""

import difflib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

Severity: TypeAlias = Literal["error", "warning"]
_BRACKETS = {"{": "}", "<": ">"}


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with one key.

    Attributes:
        path: The path of the file.
        line: The line to look at, counted from 1.
        key: The key as a path through the file, such as `input[1].data_type`; empty where no key is to blame.
        seen: What the file says, and what Triton makes of it.
        advice: What to write instead.
        severity: "error": Triton refuses the model; "warning": it loads, and does not do what the file suggests.
    """

    path: Path
    line: int
    key: str
    seen: str
    advice: str
    severity: Severity = "error"


@dataclass(slots=True)
class Field:
    """One key of the file with what stands behind it.

    Attributes:
        name: The name, as it is written.
        line: The line where its value begins, counted from 1.
        value: The value of a scalar, unquoted; None for a group of fields.
        fields: The fields of a group; empty for a scalar.
        key: Its path through the file.
    """

    name: str
    line: int
    value: str | None = None
    fields: list["Field"] = field(default_factory=list)
    key: str = ""

    def all(self, name: str) -> list["Field"]:
        """Return the fields of this name, in order."""
        return [child for child in self.fields if child.name == name]

    def get(self, *names: str) -> "Field | None":
        """Follow the names down, each time to the first field that has one."""
        found: Field | None = self
        for name in names:
            found = next(iter(found.all(name)), None) if found is not None else None
        return found

    def text(self, name: str) -> str:
        """Return the scalar of this name; empty if there is none."""
        found = self.get(name)
        return "" if found is None or found.value is None else found.value


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """A configuration that Triton's schema accepts.

    Attributes:
        path: The path of the file.
        folder: The folder of the model, with its versions.
        root: The fields with their lines.
        message: The same as Triton's protobuf message.
    """

    path: Path
    folder: Path
    root: Field
    message: Any

    @property
    def is_variant(self) -> bool:
        """True for a file of `configs/`, which may be for other hardware than this machine's."""
        return self.path.parent != self.folder

    def problem(
        self, where: Field | None, seen: str, advice: str, *, severity: Severity = "error", key: str = ""
    ) -> Problem:
        """Describe what is wrong at a field; without one, at the file's first line under `key`."""
        if where is None:
            return Problem(self.path, 1, key, seen, advice, severity)
        return Problem(self.path, where.line, where.key, seen, advice, severity)


def read_config(path: Path, folder: Path) -> tuple[ConfigFile | None, list[Problem]]:
    """Read a configuration, and hold it against Triton's schema.

    Args:
        path: The path of the file.
        folder: The folder of the model.

    Returns:
        The file, or None and what the schema says against it: every unknown key and value, or else the first error.
    """
    try:
        text = path.read_text(encoding="utf-8")
        root = parse_fields(text)
    except UnicodeDecodeError as error:
        return None, [Problem(path, 1, "", f"is not UTF-8: {error}", "save it as UTF-8, or run `lychee export`")]
    except text_format.ParseError as error:
        return None, [_syntax_problem(path, Field("", 1), error)]
    problems = [*_schema_problems(path, root, model_config_pb2.ModelConfig.DESCRIPTOR), *_two_schedulers(path, root)]
    if problems:
        return None, problems
    message = model_config_pb2.ModelConfig()
    try:
        text_format.Parse(text, message)
    except text_format.ParseError as error:
        return None, [_syntax_problem(path, root, error)]
    return ConfigFile(path, folder, root, message), []


def parse_fields(text: str) -> Field:
    """Read protobuf's text format without a schema.

    Raises:
        ParseError: It is not protobuf's text format.
    """
    tokens: Any = text_format.Tokenizer(text.splitlines())  # its type stubs ask for Message where it takes str
    root = Field("", 1, fields=_parse_block(tokens, end=""))
    _label(root, "")
    return root


def suggest(word: str, known: Iterable[str]) -> str:
    """Return `did you mean X?` for the nearest of the known words, or all of them."""
    choices = sorted(known)
    near = difflib.get_close_matches(word, choices, n=1)
    return f"did you mean {near[0]}?" if near else f"expected one of {', '.join(choices)}"


def _parse_block(tokens: Any, end: str) -> list[Field]:
    """Read fields up to the closing bracket, or with an empty `end`, to the end of the file."""
    fields: list[Field] = []
    while not (tokens.AtEnd() if not end else tokens.TryConsume(end)):
        if tokens.AtEnd():
            raise tokens.ParseErrorPreviousToken(f"Expected {end!r} before the end of the file.")
        name = tokens.ConsumeIdentifier()
        tokens.TryConsume(":")
        if tokens.TryConsume("["):
            while not tokens.TryConsume("]"):
                fields.append(_parse_value(tokens, name))
                tokens.TryConsume(",")
        else:
            fields.append(_parse_value(tokens, name))
        if not tokens.TryConsume(","):
            tokens.TryConsume(";")
    return fields


def _parse_value(tokens: Any, name: str) -> Field:
    """Read what follows a name. The line is that of the value: in a list it has no name of its own."""
    if tokens.AtEnd():
        raise tokens.ParseErrorPreviousToken(f"Expected a value of {name}.")
    for opening, closing in _BRACKETS.items():
        if tokens.TryConsume(opening):
            line = _line(tokens)
            return Field(name, line, fields=_parse_block(tokens, closing))
    if tokens.token[0] in "\"'":
        value = tokens.ConsumeString()
    else:
        value = tokens.token
        tokens.NextToken()
    return Field(name, _line(tokens), value)


def _line(tokens: Any) -> int:
    """Return the line of the token that was read last: the tokenizer tells it in its errors alone."""
    return int(tokens.ParseErrorPreviousToken("").GetLine())


def _label(parent: Field, prefix: str) -> None:
    """Give the fields below their keys: `name`, `name[1]` where it is repeated, `name[key]` in a map."""
    counts = Counter(child.name for child in parent.fields)
    seen: Counter[str] = Counter()
    for child in parent.fields:
        index = child.text("key") or (str(seen[child.name]) if counts[child.name] > 1 else "")
        child.key = f"{prefix}{child.name}[{index}]" if index else f"{prefix}{child.name}"
        seen[child.name] += 1
        _label(child, f"{child.key}.")


def _schema_problems(path: Path, parent: Field, descriptor: Any) -> Iterator[Problem]:
    for child in parent.fields:
        spec = descriptor.fields_by_name.get(child.name)
        if spec is None:
            seen = f"Triton knows no {child.name} here, and refuses the whole file"
            yield Problem(path, child.line, child.key, seen, suggest(child.name, descriptor.fields_by_name))
        elif spec.message_type is not None:
            yield from _schema_problems(path, child, spec.message_type)
        elif spec.enum_type is not None and child.value is not None:
            names = spec.enum_type.values_by_name
            if child.value not in names and not child.value.isdigit():
                seen = f"is {child.value}, which is no {spec.enum_type.name}"
                yield Problem(path, child.line, child.key, seen, suggest(child.value, names))


def _two_schedulers(path: Path, root: Field) -> Iterator[Problem]:
    """Triton's own message about these two does not say which to remove."""
    batching = root.get("dynamic_batching")
    if batching is not None and root.get("ensemble_scheduling") is not None:
        seen = "an ensemble never batches by itself, and Triton refuses a file with both"
        yield Problem(
            path, batching.line, batching.key, seen, "remove it here, and put it into the models of the ensemble"
        )


def _syntax_problem(path: Path, root: Field, error: text_format.ParseError) -> Problem:
    line = error.GetLine() or 1
    seen = " ".join(str(error).partition(" : ")[2].split()) or str(error)
    return Problem(path, line, _key_at(root, line), seen, "correct it, or run `lychee export` to write the file again")


def _key_at(parent: Field, line: int) -> str:
    """Return the key of the last, innermost field that begins on the line; empty if none does."""
    key = ""
    for child in parent.fields:
        key = _key_at(child, line) or (child.key if child.line == line else key)
    return key

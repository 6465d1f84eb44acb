"""Named instructions: what a model is told to judge, kept as JSON, in English and Chinese.

The bundled templates are in bundled.json beside this file. A file of the user's own adds to them and overrides them.
"""

from __future__ import annotations

import functools
import json
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias, get_args

import platformdirs

from lychee_client._errors import ConfigurationError
from lychee_client.files import write_atomically

Language: TypeAlias = Literal["en", "zh"]

FORMAT_VERSION: Final = 1
LANGUAGES: Final[tuple[Language, ...]] = get_args(Language)
DEFAULT_NAME: Final = "default"
MAX_NAME_CHARACTERS: Final = 64
MAX_TEXT_CHARACTERS: Final = 1_000
MAX_FILE_SIZE_BYTES: Final = 1_048_576

_NAME = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")
# Chat templates and tokenizers take these for the end of a turn, an image, or a part of the prompt.
_PROMPT_MARKER = re.compile(
    r"<[|｜][^<>]*[|｜]>"
    r"|</?(?:s|bos|eos|pad|unk|image|start_of_turn|end_of_turn|instruct|query|document)>"
    r"|\[/?(?:INST|SYS|CLS|SEP|PAD|MASK)\]",
    re.IGNORECASE,
)
# Control characters, invisible ones (zero width, direction), surrogates, and separators of lines and paragraphs.
_UNPRINTABLE: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


@dataclass(frozen=True, slots=True)
class InstructionTemplate:
    """One named instruction.

    Args:
        name: The template's name: lower-case words joined by hyphens, at most MAX_NAME_CHARACTERS.
        purpose: What the instruction is for, in one line, for people.
        texts: What the model reads, by language. Empty for the template "default" and for no other: it stands for
            the instruction in the server's manifest.

    Raises:
        ConfigurationError: A field cannot be used; the message names the template and the key.
    """

    name: str
    purpose: str
    texts: Mapping[Language, str]

    def __post_init__(self) -> None:
        if len(self.name) > MAX_NAME_CHARACTERS or not _NAME.fullmatch(self.name):
            raise ConfigurationError(
                f"the template name {self.name!r} cannot be used; expected at most {MAX_NAME_CHARACTERS} lower-case "
                "letters and digits, words joined by hyphens, for example 'product-match'"
            )
        self._check("purpose", self.purpose)
        if (self.name == DEFAULT_NAME) != (not self.texts):
            raise ConfigurationError(
                f"template {self.name!r}: texts has {len(self.texts)} languages; expected at least one of "
                f"{', '.join(LANGUAGES)} (and none for {DEFAULT_NAME!r}, whose text the model brings along)"
            )
        for language, text in self.texts.items():
            if language not in LANGUAGES:
                raise ConfigurationError(
                    f"template {self.name!r}: texts has the key {language!r}; expected {' or '.join(LANGUAGES)}"
                )
            self._check(f"texts.{language}", text)
        object.__setattr__(self, "texts", MappingProxyType(dict(self.texts)))

    def _check(self, key: str, value: object) -> None:
        if not isinstance(value, str):
            raise ConfigurationError(f"template {self.name!r}: {key} is {value!r}; expected a string")
        problem = text_problem(value)
        if problem is not None:
            raise ConfigurationError(f"template {self.name!r}: {key} {problem}")

    def text(self, language: Language = "en") -> str | None:
        """Return what the model reads, or None for the model's own default, as `rerank(instruction=...)` takes it.

        Raises:
            ConfigurationError: The template has no text in that language.
        """
        if self.name == DEFAULT_NAME:
            return None
        if language not in self.texts:
            raise ConfigurationError(
                f"template {self.name!r} has no text in {language!r}; it has {', '.join(self.texts)}"
            )
        return self.texts[language]


def text_problem(text: str) -> str | None:
    """Return why a model cannot be given this text, worded to follow its name, or None if it can."""
    if not text.strip():
        return "is empty; write what the model shall judge"
    if len(text) > MAX_TEXT_CHARACTERS:
        return f"has {len(text)} characters; expected at most {MAX_TEXT_CHARACTERS}, one sentence is best"
    for position, character in enumerate(text):
        if unicodedata.category(character) in _UNPRINTABLE:
            return (
                f"has the unprintable character U+{ord(character):04X} at position {position}; "
                "remove it (an instruction is one line)"
            )
    marker = _PROMPT_MARKER.search(text)
    if marker is not None:
        return f"holds {marker.group()!r}, which models read as a part of the prompt's frame; remove it"
    return None


@functools.cache
def bundled_instructions() -> Mapping[str, InstructionTemplate]:
    """Return the templates of this package by name, in the order in which they are shown."""
    source = resources.files("lychee_client.instructions") / "bundled.json"
    return MappingProxyType(_parse(source.read_text(encoding="utf-8"), source.name))


def user_instructions_path() -> Path:
    """Return where the user's own templates are: LYCHEE_INSTRUCTIONS, or instructions.json in the config folder."""
    override = os.environ.get("LYCHEE_INSTRUCTIONS")
    return Path(override) if override else platformdirs.user_config_path("lychee-rerank") / "instructions.json"


def user_instructions() -> dict[str, InstructionTemplate]:
    """Return the user's own templates by name; none where the config folder has no file.

    Raises:
        ConfigurationError: The file cannot be read or used, or LYCHEE_INSTRUCTIONS names a file that does not exist.
    """
    path = user_instructions_path()
    if path.exists():
        return load_instructions(path)
    if os.environ.get("LYCHEE_INSTRUCTIONS"):
        raise ConfigurationError(
            f"LYCHEE_INSTRUCTIONS is {str(path)!r}, which does not exist; correct it, or make the file with "
            "`lychee instructions import`"
        )
    return {}


def all_instructions() -> dict[str, InstructionTemplate]:
    """Return the bundled templates and the user's own by name; where both have a name, the user's wins.

    Raises:
        ConfigurationError: The user's file cannot be used.
    """
    return {**bundled_instructions(), **user_instructions()}


def get_template(name: str) -> InstructionTemplate:
    """Return the named template, the user's own first.

    Raises:
        ConfigurationError: No template has that name, or the user's file cannot be used.
    """
    templates = all_instructions()
    if name not in templates:
        raise ConfigurationError(f"no instruction is called {name!r}; expected one of {', '.join(templates)}")
    return templates[name]


def get_instruction(name: str, language: Language = "en") -> str | None:
    """Return what `get_template(name).text(language)` does: a text, or None for the model's own default."""
    return get_template(name).text(language)


def load_instructions(path: str | Path) -> dict[str, InstructionTemplate]:
    """Read a file of templates, by name, in the file's order.

    Raises:
        ConfigurationError: The file cannot be read, or holds anything but valid templates; the message names the file,
            the template and the key.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_SIZE_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}; check the path") from error
    if len(data) > MAX_FILE_SIZE_BYTES:
        raise ConfigurationError(f"{path} is larger than the limit of {MAX_FILE_SIZE_BYTES} bytes; split it")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            f"{path} is not UTF-8: {error.reason} at byte {error.start}; save it as UTF-8"
        ) from error
    return _parse(text, str(path))


def import_instructions(path: str | Path, *, force: bool = False) -> dict[str, InstructionTemplate]:
    """Add a file's templates to the user's own, all or none of them.

    Args:
        path: A file as `dump_instructions` writes it.
        force: Whether templates of the same name are replaced; otherwise a name may come again only with the same
            content.

    Returns:
        The new or replaced templates by name, without those that were there already with the same content.

    Raises:
        ConfigurationError: The file or the user's own file cannot be used, a name is taken, or nothing can be written.
    """
    target = user_instructions_path()
    own = load_instructions(target) if target.exists() else {}
    existing = {**bundled_instructions(), **own}
    new = {name: template for name, template in load_instructions(path).items() if existing.get(name) != template}
    taken = [name for name in new if name in existing]
    if taken and not force:
        raise ConfigurationError(
            f"{path} has templates whose names are taken: {', '.join(taken)}; rename them, or replace the existing "
            "ones with --force"
        )
    if new:
        save_instructions({**own, **new}.values(), target)
    return new


def dump_instructions(templates: Iterable[InstructionTemplate]) -> str:
    """Return templates as JSON that `load_instructions` reads."""
    entries: dict[str, object] = {}
    for template in templates:
        entries[template.name] = {"purpose": template.purpose, "texts": dict(template.texts.items())}
    return json.dumps({"format_version": FORMAT_VERSION, "templates": entries}, ensure_ascii=False, indent=2) + "\n"


def save_instructions(templates: Iterable[InstructionTemplate], path: str | Path) -> None:
    """Write templates to a file atomically: a failure leaves the old content. Missing folders are made.

    Raises:
        ConfigurationError: The file cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"the folder {path.parent} cannot be made: {error.strerror}") from error
    write_atomically(path, dump_instructions(templates).encode("utf-8"))


class _Object(dict[str, Any]):
    """A JSON object that knows which of its keys were written more than once."""

    repeated: tuple[str, ...] = ()


def _make_object(pairs: list[tuple[str, Any]]) -> _Object:
    made = _Object(pairs)
    made.repeated = tuple(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
    return made


def _parse(text: str, source: str) -> dict[str, InstructionTemplate]:
    try:
        data = json.loads(text, object_pairs_hook=_make_object)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{source} is not JSON: {error}; correct it there") from error
    _check_object(data, f"{source}: the file", ("format_version", "templates"))
    version = data["format_version"]
    if version != FORMAT_VERSION or isinstance(version, bool):
        raise ConfigurationError(
            f"{source}: format_version is {version!r}, this client reads {FORMAT_VERSION}; "
            "upgrade lychee-rerank-client, or correct the number"
        )
    _check_object(data["templates"], f"{source}: templates")
    return {name: _parse_template(name, entry, source) for name, entry in data["templates"].items()}


def _parse_template(name: str, entry: object, source: str) -> InstructionTemplate:
    where = f"{source}: template {name!r}"
    fields = _check_object(entry, where, ("purpose", "texts"))
    texts = _check_object(fields["texts"], f"{where}: texts")
    try:
        return InstructionTemplate(name, fields["purpose"], texts)  # type: ignore[arg-type]  # checked in there
    except ConfigurationError as error:
        raise ConfigurationError(f"{source}: {error}") from error


def _check_object(data: object, where: str, keys: tuple[str, ...] | None = None) -> _Object:
    if not isinstance(data, _Object):
        raise ConfigurationError(f"{where} is {data!r:.100}; expected an object")
    if data.repeated:
        raise ConfigurationError(f"{where} has the key {data.repeated[0]!r} more than once; keep one of them")
    if keys is not None and set(data) != set(keys):
        missing, unknown = sorted(set(keys) - set(data)), sorted(set(data) - set(keys))
        found = [f"lacks the key {key!r}" for key in missing] + [f"has the unknown key {key!r}" for key in unknown]
        raise ConfigurationError(f"{where} {' and '.join(found)}; expected {', '.join(keys)}")
    return data

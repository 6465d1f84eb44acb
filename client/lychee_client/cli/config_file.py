"""The configuration file `lychee.toml`: where it is found, what it may hold, and how its values reach the commands.

A section is named like its command, and a key like a long option. Sections whose values have environment variables of
their own, `[client]` and `[gateway]`, count for every command that reads these variables.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

import platformdirs

from lychee_client._errors import ConfigurationError
from lychee_client.cli.group import COMES_WITH
from lychee_client.cli.outcome import ORIGINS, warn

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FILE_NAME: Final = "lychee.toml"
PATH_VARIABLE: Final = "LYCHEE_CONFIG"
SHARED: Final[Mapping[str, Mapping[str, str]]] = {
    "client": {
        "url": "LYCHEE_URL",
        "api-key": "LYCHEE_API_KEY",
        "model": "LYCHEE_MODEL",
        "timeout": "LYCHEE_TIMEOUT_S",
        "max-img-size": "LYCHEE_MAX_IMG_SIZE",
    },
    "gateway": {"api-keys": "LYCHEE_GATEWAY_API_KEYS"},
}
"""Sections that reach commands as environment variables, with the keys that are no option of a command of that name."""
SECRETS: Final = frozenset({"api-key", "api-keys", "redis-url"})
READABLE_BY_OTHERS: Final = 0o004


@dataclass(frozen=True, slots=True)
class Key:
    """A key that a section may have.

    Attributes:
        name: The name of the key, as the long option has it.
        parameter: The name of the command's parameter; None if no option is meant.
        variable: The environment variable that goes before the file.
        is_switch: Whether its value is true or false.
        repeats: Whether its value may be a list.
        default: The default of the option.
        help: The description of the option.
    """

    name: str
    parameter: str | None
    variable: str | None
    is_switch: bool = False
    repeats: bool = False
    default: object = None
    help: str = ""


@dataclass(frozen=True, slots=True)
class Setting:
    """A value of the file as text, true or false, or a list of texts, and the line where it stands, if it is known."""

    key: Key
    value: str | bool | list[str]
    place: str


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """The settings of one file by section and key; `path` is None if there is no file."""

    path: Path | None
    sections: Mapping[str, Mapping[str, Setting]]

    def default_map(self) -> dict[str, Any]:
        """Return the values as click wants them."""
        found: dict[str, Any] = {}
        for section, settings in self.sections.items():
            inner = found
            for part in section.split("."):
                inner = inner.setdefault(part, {})
            inner.update({each.key.parameter: each.value for each in settings.values() if each.key.parameter})
        return found

    def variables(self, command: str | None) -> dict[str, Setting]:
        """Return what environment variables should hold for a command, unless its own section says otherwise."""
        own = {setting.key.variable for setting in self.sections.get(command or "", {}).values()}
        return {
            setting.key.variable: setting
            for section in SHARED
            for setting in self.sections.get(section, {}).values()
            if setting.key.variable and (section == command or setting.key.variable not in own)
        }


def list_places() -> list[Path]:
    """Return where a configuration file is looked for, if none is named."""
    return [Path(FILE_NAME), platformdirs.user_config_path("lychee-rerank") / FILE_NAME]


def find_config(named: Path | None) -> Path | None:
    """Return the configuration file: the named one, that of LYCHEE_CONFIG, or the first of `list_places` that exists.

    Raises:
        ConfigurationError: The file that is named does not exist.
    """
    variable = os.environ.get(PATH_VARIABLE)
    path, name = (named, "--config") if named or not variable else (Path(variable), PATH_VARIABLE)
    if path is None:
        return next((place for place in list_places() if place.is_file()), None)
    if not path.is_file():
        raise ConfigurationError(
            f"{name} is {str(path)!r}, which is no file; `lychee config init` writes one to begin with"
        )
    return path


def list_sections(group: Any) -> dict[str, dict[str, Key]]:
    """Return every section that the installed commands know, with its keys by name.

    Args:
        group: The command `lychee`.
    """
    sections = {section: _keys(command) for section, command in _leaves(group, "")}
    for section, variables in SHARED.items():
        if section not in COMES_WITH or section in sections:  # its distribution is installed
            more = {name: Key(name, None, variable, repeats=name.endswith("s")) for name, variable in variables.items()}
            sections[section] = sections.get(section, {}) | more
    return sections


def read_config(path: Path | None, sections: Mapping[str, Mapping[str, Key]]) -> ConfigFile:
    """Read and check a file. One that holds secrets and that everyone may read gets a warning.

    Raises:
        ConfigurationError: It is no TOML, or a section, key or value is not known; the message has the line.
    """
    if path is None:
        return ConfigFile(None, {})
    try:
        text = path.read_text(encoding="utf-8")
        data = tomllib.loads(text)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}; mend its permissions") from error
    except ValueError as error:
        raise ConfigurationError(f"{path} is no TOML: {error}") from error
    found: dict[str, dict[str, Setting]] = {}
    lines = _Lines(path, text)
    for section, values in _tables(data, "", sections, lines):
        found[section] = {name: _check(section, name, value, sections, lines) for name, value in values.items()}
    secrets = [f"[{section}] {name}" for section, settings in found.items() for name in settings if name in SECRETS]
    if secrets and path.stat().st_mode & READABLE_BY_OTHERS:
        warn(f"{path} holds {', '.join(secrets)}, and everyone on this machine may read it; run: chmod 600 {path}")
    return ConfigFile(path, found)


def apply_config(config: ConfigFile, command: str | None, environment: Any = os.environ) -> dict[str, Any]:
    """Put the values into the environment where it says nothing, and return the other ones for click.

    Args:
        config: What the file says.
        command: The name of the command that runs.
        environment: The environment variables; changed.
    """
    for variable, setting in config.variables(command).items():
        if not environment.get(variable):
            environment[variable] = as_text(setting.value)
            ORIGINS[variable] = setting.place
    return config.default_map()


def as_text(value: str | bool | list[str]) -> str:
    """Return a value as an environment variable has it."""
    if isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, str) else " ".join(value)


class _Lines:
    """Finds the line of a key, for messages; the parser does not tell."""

    def __init__(self, path: Path, text: str) -> None:
        self._path = path
        self._lines = text.splitlines()

    def place(self, section: str, name: str) -> str:
        """Return file and line, or the file alone if the line is written in an uncommon way."""
        current = ""
        for number, line in enumerate(self._lines, start=1):
            header = re.match(r"\s*\[([\w.-]+)\]", line)
            if header is not None:
                current = header[1]
            found = (current, "") if header is not None else (current, line.partition("=")[0].strip().strip("\"'"))
            if found == (section, name):
                return f"{self._path}, line {number}"
        return str(self._path)


def _leaves(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield every command that does something, with its name; `config` reads the file itself."""
    for part, below in command.commands.items():
        whole = f"{name}.{part}" if name else part
        if whole == "config":
            continue
        if hasattr(below, "commands"):
            yield from _leaves(below, whole)
        else:
            yield whole, below


def _keys(command: Any) -> dict[str, Key]:
    keys = {}
    for option in command.params:
        flag = next((flag for flag in option.opts if flag.startswith("--")), None)
        if option.param_type_name == "option" and flag is not None:
            name = flag.removeprefix("--")
            keys[name] = Key(
                name,
                option.name,
                option.envvar,
                bool(option.is_flag),
                bool(option.multiple),
                option.default,
                option.help or "",
            )
    return keys


def _tables(
    data: Mapping[str, Any], above: str, sections: Mapping[str, Any], lines: _Lines
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the tables that are sections of installed commands."""
    for part, value in data.items():
        section = f"{above}.{part}" if above else part
        if isinstance(value, dict) and section in sections:
            yield section, value
        elif isinstance(value, dict) and any(known.startswith(f"{section}.") for known in sections):
            yield from _tables(value, section, sections, lines)
        elif not isinstance(value, dict) or section not in COMES_WITH:  # of a distribution that is not installed
            if not isinstance(value, dict):
                raise ConfigurationError(
                    f"{lines.place(above, part)}: {part!r} is in no section of a command; expected it below a line "
                    "such as [load]"
                )
            suggestion = _suggest(section, sections, "[{}]")
            raise ConfigurationError(f"{lines.place(section, '')}: section [{section}] is not known; {suggestion}")


def _check(section: str, name: str, value: Any, sections: Mapping[str, Mapping[str, Key]], lines: _Lines) -> Setting:
    keys, place = sections[section], lines.place(section, name)
    key = keys.get(name)
    if key is None:
        raise ConfigurationError(f"{place}: section [{section}] has no key {name!r}; {_suggest(name, keys, '{}')}")
    if key.is_switch and isinstance(value, bool):
        return Setting(key, value, place)
    values = value if isinstance(value, list) and key.repeats else [value]
    if key.is_switch or not all(isinstance(each, str | int | float) and not isinstance(each, bool) for each in values):
        expected = "true or false" if key.is_switch else "texts or numbers" if key.repeats else "a text or a number"
        shown = "" if name in SECRETS else f" is {value!r}"
        raise ConfigurationError(f"{place}: [{section}] {name}{shown}; expected {expected}")
    texts = [str(each) for each in values]
    return Setting(key, texts if key.repeats else texts[0], place)


def _suggest(name: str, known: Mapping[str, Any], form: str) -> str:
    near = get_close_matches(name, known, n=1)
    if near:
        return f"did you mean {form.format(near[0])}?"
    return f"expected one of {', '.join(form.format(each) for each in known)}"

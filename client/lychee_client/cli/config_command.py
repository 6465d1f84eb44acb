"""`lychee config`: where the values of all commands come from, and a configuration file to begin with."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lychee_client.cli.config_file import (
    FILE_NAME,
    SECRETS,
    SHARED,
    ConfigFile,
    Key,
    as_text,
    find_config,
    list_places,
    list_sections,
    read_config,
)
from lychee_client.cli.outcome import EXIT_FAILED, tell
from lychee_client.files import check_writable

MASK: Final = "***"
SECRET_FILE: Final = 0o600
HEADING: Final = f"""\
# {FILE_NAME}: values for the options of `lychee`. An argument goes before an environment variable, that before this
# file, and this before the default. `lychee config show` says where each value comes from.
"""

_app = typer.Typer(no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the command with its subcommands."""
    app.add_typer(_app, name="config", help="Say where values come from; write a configuration file to begin with.")


@dataclass(frozen=True, slots=True)
class Origin:
    """A value that a command would take, and where it comes from."""

    section: str
    key: str
    value: str | None
    origin: str


@_app.command(name="show")
def _show(
    context: typer.Context,
    sections: Annotated[list[str] | None, typer.Argument(metavar="SECTIONS...", help="[default: all sections]")] = None,
    changed: Annotated[bool, typer.Option("--changed", help="Leave out what is as it is by default.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show the value of every option, and whether it comes from the environment, the file or the program.

    Example: lychee config show load gateway
    """
    known = list_sections(context.find_root().command)
    unknown = [section for section in sections or () if section not in known]
    if unknown:
        context.fail(f"{unknown[0]!r} is no section; expected one of {', '.join(known)}")
    config = read_config(find_config(_named(context)), known)
    found = [
        origin
        for section in sections or known
        for key in known[section].values()
        for origin in [_origin(section, key, config)]
        if not changed or origin.origin != "default"
    ]
    if as_json:
        path = None if config.path is None else str(config.path)
        answer = {"path": path, "values": [asdict(origin) for origin in found]}
        typer.echo(json.dumps(answer, ensure_ascii=False, indent=2))
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("section", "key", "value", "from"):
        table.add_column(heading, overflow="fold")
    for origin in found:
        value = "-" if origin.value is None else origin.value
        table.add_row(*(Text(text) for text in (f"[{origin.section}]", origin.key, value, origin.origin)))
    Console().print(table)


@_app.command(name="path")
def _path(context: typer.Context) -> None:
    """Print which configuration file is in use. Exit status 1 if there is none.

    Example: lychee config path
    """
    path = find_config(_named(context))
    if path is None:
        tell(f"no configuration file is in use; looked for {' and '.join(map(str, list_places()))}")
        raise typer.Exit(EXIT_FAILED)
    typer.echo(path.absolute())


@_app.command(name="init")
def _init(
    context: typer.Context,
    path: Annotated[Path, typer.Argument(metavar="PATH", help="File to write.")] = Path(FILE_NAME),
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
) -> None:
    """Write a configuration file that names every option, each commented out.

    Example: lychee config init
    """
    check_writable(path, replace=force)
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, SECRET_FILE), "w", encoding="utf-8") as file:
        file.write("\n".join(_template(context)))
    typer.echo(f"wrote {path}; `lychee config show` says what is in force")


def _named(context: typer.Context) -> Path | None:
    named: Path | None = context.find_root().params.get("config")
    return named


def _origin(section: str, key: Key, config: ConfigFile) -> Origin:
    """Return what a command would take if its arguments do not say it."""

    def answer(value: str, origin: str) -> Origin:
        return Origin(section, key.name, MASK if key.name in SECRETS and value else value, origin)

    if key.variable and os.environ.get(key.variable):
        return answer(os.environ[key.variable], key.variable)
    setting = config.sections.get(section, {}).get(key.name)
    if setting is None and key.variable:
        setting = config.variables(None).get(key.variable)
    if setting is not None:
        return answer(as_text(setting.value), setting.place)
    return Origin(section, key.name, _default(key), "default")


def _default(key: Key) -> str | None:
    if key.default is None or key.default == ():
        return None
    return as_text(key.default if isinstance(key.default, bool) else str(key.default))


def _template(context: typer.Context) -> Iterator[str]:
    yield HEADING
    known = list_sections(context.find_root().command)
    for section in sorted(known, key=lambda name: (name not in SHARED, name)):
        yield f"[{section}]"
        for key in known[section].values():
            value = _default(key)
            plain = key.is_switch or re.fullmatch(r"\d+(\.\d+)?", value or "")
            text = value if plain else json.dumps(value or "", ensure_ascii=False)
            yield f"# {key.name} = {'[]' if key.repeats else text}{f'  # {key.help}' if key.help else ''}"
        yield ""

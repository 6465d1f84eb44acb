"""The command `lychee`. Other distributions add commands through the entry-point group "lychee.commands"."""

from __future__ import annotations

from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Annotated, Final

import typer

from lychee_client.cli import config_command, doctor, rerank, score
from lychee_client.cli.config_file import (
    FILE_NAME,
    PATH_VARIABLE,
    apply_config,
    find_config,
    list_sections,
    read_config,
)
from lychee_client.cli.group import CommandGroup
from lychee_client.cli.outcome import tell

COMMANDS_GROUP: Final = "lychee.commands"

app = typer.Typer(
    name="lychee",
    cls=CommandGroup,
    help="Rerank texts and images.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
rerank.register(app)
score.register(app)
doctor.register(app)
config_command.register(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(version("lychee-rerank-client"))
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="PATH",
            help=f"Configuration file; {PATH_VARIABLE}, ./{FILE_NAME} or that of the user, if not given.",
        ),
    ] = None,
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """Rerank texts and images."""
    if context.invoked_subcommand != "config":
        read = read_config(find_config(config), list_sections(context.command))
        context.default_map = apply_config(read, context.invoked_subcommand)


def add_commands(app: typer.Typer) -> None:
    """Let every installed distribution register its commands; one that cannot is reported on stderr and skipped."""
    for entry_point in sorted(entry_points(group=COMMANDS_GROUP), key=lambda entry_point: entry_point.name):
        try:
            entry_point.load()(app)
        except Exception as error:  # a broken extension must not take the other commands with it
            tell(f"the commands of {entry_point.value} are missing: {error}")


def main() -> None:
    """Run the command line."""
    add_commands(app)
    app()

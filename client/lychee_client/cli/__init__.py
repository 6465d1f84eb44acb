"""The command `lychee`. Other distributions add commands through the entry-point group "lychee.commands"."""

from __future__ import annotations

import sys
from importlib.metadata import entry_points, version
from typing import Annotated, Final

import typer

from lychee_client.cli import doctor, rerank, score

COMMANDS_GROUP: Final = "lychee.commands"

app = typer.Typer(
    name="lychee",
    help="Rerank texts and images.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
rerank.register(app)
score.register(app)
doctor.register(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(version("lychee-rerank-client"))
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """Rerank texts and images."""


def add_commands(app: typer.Typer) -> None:
    """Let every installed distribution register its commands; one that cannot is reported on stderr and skipped."""
    for entry_point in sorted(entry_points(group=COMMANDS_GROUP), key=lambda entry_point: entry_point.name):
        try:
            entry_point.load()(app)
        except Exception as error:  # a broken extension must not take the other commands with it
            print(f"lychee: the commands of {entry_point.value} are missing: {error}", file=sys.stderr)


def main() -> None:
    """Run the command line."""
    add_commands(app)
    app()

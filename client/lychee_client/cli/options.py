"""What the commands that call a server have in common."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, TypeAlias

import typer

from lychee_client._errors import ConfigurationError, LycheeError

Url: TypeAlias = Annotated[
    str | None,
    typer.Option("--url", metavar="HOST:PORT", help="The server's gRPC endpoint [default: LYCHEE_URL, localhost:8001]"),
]


@contextmanager
def reported_errors() -> Iterator[None]:
    """Turn a LycheeError into one message on stderr: exit code 2 for a bad option, otherwise 1."""
    try:
        yield
    except LycheeError as error:
        typer.echo(f"lychee: {error}", err=True)
        raise typer.Exit(2 if isinstance(error, ConfigurationError) else 1) from error

"""`lychee doctor`: is everything as it should be, and if not, what to do."""

from __future__ import annotations

import json
import os
import time
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.text import Text

from lychee_client._client import LycheeClient
from lychee_client._config import UNSET, load_config
from lychee_client._errors import ConfigurationError
from lychee_client.checks.cache import CACHE_CHECKS
from lychee_client.checks.check import (
    CheckContext,
    CheckResult,
    Verdict,
    WriteBundle,
    contributed_checks,
    find_bundle_writer,
    run_checks,
)
from lychee_client.checks.server import SERVER_CHECKS
from lychee_client.cli.options import ModelName, Url
from lychee_client.cli.outcome import EXIT_FAILED, reported_errors

_WORDS: Final[dict[Verdict, tuple[str, str]]] = {
    "ok": ("ok", "green"),
    "warning": ("warning", "yellow"),
    "failed": ("FAILED", "bold red"),
    "skipped": ("skipped", "dim"),
}
_EPILOG: Final = "Example: lychee doctor --url localhost:8001 --repository model_repository"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(name="doctor", epilog=_EPILOG)(_doctor)


def _doctor(
    url: Url = None,
    model: ModelName = None,
    repository: Annotated[
        Path | None,
        typer.Option(
            envvar="LYCHEE_REPOSITORY",
            help="Model repository on this machine; without it, the running server's or ./model_repository.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    bundle: Annotated[
        bool,
        typer.Option("--bundle", help="Also write a ZIP file for who helps you, without texts, images or keys."),
    ] = False,
    path: Annotated[
        Path | None, typer.Argument(metavar="[PATH]", help="Of the bundle: a file or a folder; only with --bundle.")
    ] = None,
) -> None:
    """Check server, scores, cache, ports, files and configuration; say what to do. Exit status 1 if a check fails.

    With --bundle it is 0 as soon as the bundle is written.
    """
    write = _find_writer(path, wanted=bundle)
    with _context(url, model, repository) as context:
        results = run_checks({**SERVER_CHECKS, **CACHE_CHECKS, **contributed_checks()}, context)
        found = list(results) if as_json else list(_printed(results))
    passed = all(result.verdict != "failed" for result in found)
    target = None if write is None else _write_bundle(write(checks=found, repository=repository), path)
    if as_json:
        told = {"url": context.url, "passed": passed, "checks": [asdict(result) for result in found]}
        if target is not None:
            told["bundle"] = str(target)
        typer.echo(json.dumps(told, ensure_ascii=False, indent=2))
    else:
        counts = Counter(result.verdict for result in found)
        typer.echo(", ".join(f"{counts[verdict]} {word}" for verdict, (word, _) in _WORDS.items() if counts[verdict]))
        if target is not None:
            typer.echo("\n".join(_describe_bundle(target)))
    if not passed and target is None:
        raise typer.Exit(EXIT_FAILED)


def _find_writer(path: Path | None, *, wanted: bool) -> WriteBundle | None:
    """Return what writes the bundle if one is wanted; refuse a path without a bundle, and a bundle without a server."""
    with reported_errors():
        if not wanted:
            if path is not None:
                raise ConfigurationError(f"{str(path)!r} would be the path of a bundle; expected --bundle beside it")
            return None
        writer = find_bundle_writer()
        if writer is None:
            raise ConfigurationError(
                "--bundle needs lychee-rerank-server, which is not installed here; on the server's machine: "
                "pip install lychee-rerank-server"
            )
        return writer


def _write_bundle(content: bytes, path: Path | None) -> Path:
    """Write the bundle for this user alone, and return where it is."""
    target = path if path is not None else Path()
    if target.is_dir():
        target /= time.strftime("lychee-support-%Y%m%d-%H%M%S.zip")
    with reported_errors():
        try:
            with open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(content)
        except OSError as error:
            raise ConfigurationError(
                f"the bundle cannot be written to {target} ({error.strerror}); name a file in a folder that exists"
            ) from error
    return target


def _describe_bundle(path: Path) -> Iterator[str]:
    """Yield what is in a bundle, as lines."""
    yield f"{path} holds, without texts, images or keys:"
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            yield f"{entry.file_size:>10,} bytes  {entry.filename}"


@contextmanager
def _context(url: str | None, model: str | None, repository: Path | None) -> Iterator[CheckContext]:
    """Connect a client; a bad option ends the command."""
    with reported_errors():
        if repository is not None and not repository.is_dir():
            raise ConfigurationError(
                f"--repository (or LYCHEE_REPOSITORY) is {str(repository)!r}, which is no folder; name the one that "
                "`lychee export` wrote"
            )
        address = load_config(url).url
        with LycheeClient(url, model=model or UNSET) as client:
            yield CheckContext(client, address, repository)


def _printed(results: Iterator[CheckResult]) -> Iterator[CheckResult]:
    """Print each result as one line, when it comes, and pass it on."""
    console = Console(highlight=False)
    for result in results:
        word, style = _WORDS[result.verdict]
        line = Text.assemble(f"{result.name:<13}", (f"{word:<8}", style), " ".join(result.seen.split()))
        if result.advice:
            line.append(f" -> {' '.join(result.advice.split())}")
        console.print(line, soft_wrap=True)
        yield result

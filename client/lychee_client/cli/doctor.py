"""`lychee doctor`: is everything as it should be, and if not, what to do."""

from __future__ import annotations

import json
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
from lychee_client._config import load_config
from lychee_client._errors import ConfigurationError
from lychee_client.checks.cache import CACHE_CHECKS
from lychee_client.checks.check import CheckContext, CheckResult, Verdict, contributed_checks, run_checks
from lychee_client.checks.server import SERVER_CHECKS
from lychee_client.cli.options import Url
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
    repository: Annotated[
        Path | None,
        typer.Option(
            envvar="LYCHEE_REPOSITORY",
            help="Model repository on this machine; without it, the running server's or ./model_repository.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check server, scores, cache, ports, files and configuration; say what to do. Exit status 1 if a check fails."""
    with _context(url, repository) as context:
        results = run_checks({**SERVER_CHECKS, **CACHE_CHECKS, **contributed_checks()}, context)
        found = list(results) if as_json else list(_printed(results))
    passed = all(result.verdict != "failed" for result in found)
    if as_json:
        checks = [asdict(result) for result in found]
        typer.echo(json.dumps({"url": context.url, "passed": passed, "checks": checks}, ensure_ascii=False, indent=2))
    else:
        counts = Counter(result.verdict for result in found)
        typer.echo(", ".join(f"{counts[verdict]} {word}" for verdict, (word, _) in _WORDS.items() if counts[verdict]))
    if not passed:
        raise typer.Exit(EXIT_FAILED)


@contextmanager
def _context(url: str | None, repository: Path | None) -> Iterator[CheckContext]:
    """Connect a client; a bad option ends the command."""
    with reported_errors():
        if repository is not None and not repository.is_dir():
            raise ConfigurationError(
                f"--repository (or LYCHEE_REPOSITORY) is {str(repository)!r}, which is no folder; name the one that "
                "`lychee export` wrote"
            )
        address = load_config(url).url
        with LycheeClient(url) as client:
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

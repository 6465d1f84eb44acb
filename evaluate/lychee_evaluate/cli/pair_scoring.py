"""What `lychee calibrate` and `lychee sample` have in common: scoring a file's pairs, and saying what was left out."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, TypeAlias

import typer
from lychee_client import LycheeClient, LycheeWarning
from rich.console import Console
from rich.progress import Progress

from lychee_evaluate.calibration.pair_scores import PairScores, score_pairs
from lychee_evaluate.calibration.pairs import Pair, PairSheet, SkippedRow, group_skipped, list_rows

SHOWN_REASONS = 20
Encoding: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--encoding",
        metavar="NAME",
        help="Of a text file that does not say: gb18030, big5, cp1252, ... By default found.",
    ),
]


def score_with_progress(url: str | None, pairs: Sequence[Pair], instruction: str | None) -> PairScores:
    """Score pairs, with a progress bar if stderr is a terminal.

    Raises:
        LycheeError: Whatever `score_pairs` raises.
    """
    progress = Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
    with LycheeClient(url) as client, progress, warnings.catch_warnings():
        warnings.simplefilter("ignore", LycheeWarning)  # the outcome holds them, for the report
        task = progress.add_task("scoring pairs", total=len(pairs))
        return score_pairs(
            client, pairs, instruction=instruction, on_progress=lambda count: progress.advance(task, count)
        )


def report_notes(path: Path, sheet: PairSheet) -> None:
    """Say on stderr what was found out about a file, so that a wrong finding is noticed."""
    for note in sheet.notes:
        typer.echo(f"lychee: {path}: {note}", err=True)


def report_skipped(skipped: Sequence[SkippedRow]) -> None:
    """Say on stderr which rows do not count and why, one line per reason."""
    rows = group_skipped(skipped)
    for reason, numbers in list(rows.items())[:SHOWN_REASONS]:
        typer.echo(f"lychee: row{'s' * (len(numbers) > 1)} {list_rows(numbers)} skipped: {reason}", err=True)
    hidden = sum(len(numbers) for numbers in list(rows.values())[SHOWN_REASONS:])
    if hidden:
        typer.echo(f"lychee: {hidden} more rows skipped for other reasons; --json lists all", err=True)

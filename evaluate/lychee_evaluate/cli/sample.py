"""`lychee sample`: choose the pairs that are most useful to label."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Final, Literal

import typer
from lychee_client import ConfigurationError, InvalidInputError
from lychee_client.cli.options import Url, reported_errors
from lychee_client.files import check_writable, write_atomically
from lychee_client.thresholds import get_policy

from lychee_evaluate.calibration.pairs import SkippedRow, read_pairs, select_instruction
from lychee_evaluate.calibration.sampling import DEFAULT_COUNT, choose_pairs, format_label_sheet
from lychee_evaluate.cli.pair_scoring import Encoding, report_notes, report_skipped, score_with_progress
from lychee_evaluate.tables.message import Message
from lychee_evaluate.tables.writing import Format, table_format

DEFAULT_STEM: Final = "sheet"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(name="sample")(_sample)


def _sample(
    items: Annotated[
        Path, typer.Argument(metavar="ITEMS", help="Pairs of queries and documents: CSV, .xlsx or JSON lines.")
    ],
    count: Annotated[int, typer.Option("--count", min=1, help="How many pairs to choose.")] = DEFAULT_COUNT,
    policy: Annotated[
        Literal["strict", "balanced", "exploratory"],
        typer.Option("--policy", help="Whose accepting threshold is the decision border."),
    ] = "balanced",
    threshold: Annotated[
        float | None, typer.Option("--threshold", min=0.0, max=1.0, help="The decision border, instead of --policy.")
    ] = None,
    instruction: Annotated[
        str | None,
        typer.Option("--instruction", metavar="TEXT", help="Use the pairs with this instruction, or without one."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", metavar="PATH", help="Sheet to write: .csv, .xlsx, .jsonl or .ndjson; or sheet.csv."),
    ] = None,
    file_format: Annotated[
        Format | None, typer.Option("--format", help="Format of the sheet; by default what --output ends with.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Decides between equally useful pairs.")] = 0,
    encoding: Encoding = None,
    url: Url = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Choose the pairs that are most useful to label, and write a sheet to fill in for `lychee calibrate`.

    Columns of ITEMS: query and/or query_image, text and/or image (paths relative to the file); in JSON lines also
    documents, a list. Most of the chosen pairs lie near the decision border, the others all over the scores. Rows that
    are labelled already are left out.

    Example: lychee sample items.jsonl --count 50 --output sheet.csv
    """
    with reported_errors():
        output = output or Path(f"{DEFAULT_STEM}.{file_format or 'csv'}")
        kind = table_format(output)
        if file_format not in (None, kind):
            raise ConfigurationError(f"{output} is not the name of a sheet in {file_format}; leave out --format")
        check_writable(output, replace=force)
        sheet = read_pairs(items, labelled=False, encoding=encoding)
        report_notes(items, sheet)
        pairs, left_out, instruction = select_instruction(sheet.pairs, instruction)
        labelled = [SkippedRow(pair.row, Message("labelled")) for pair in pairs if pair.relevant is not None]
        skipped = [*sheet.skipped, *left_out, *labelled]
        report_skipped(skipped)
        unlabelled = [pair for pair in pairs if pair.relevant is None]
        if not unlabelled:
            raise InvalidInputError(f"{items} has no pair to label; add rows with a query and a document")
        scored = score_with_progress(url, unlabelled, instruction)
        report_skipped(scored.skipped)
        if not scored.pairs:
            raise InvalidInputError(f"none of the {len(unlabelled)} pairs could be scored; see the skipped rows")
        border = get_policy(policy).accept if threshold is None else threshold
        chosen = choose_pairs(scored.scores, scored.queries, count=count, threshold=border, seed=seed)
        selected = [scored.pairs[index] for index in chosen]
        write_atomically(output, format_label_sheet(selected, output, kind))
    for warning in scored.warnings:
        typer.echo(f"lychee: warning: {warning}", err=True)
    queries = len({pair.query_key for pair in selected})
    if as_json:
        rows = [skip.to_json() for skip in (*skipped, *scored.skipped)]
        summary = {
            "output": str(output),
            "threshold": border,
            "pairs": len(selected),
            "queries": queries,
            "candidates": len(scored.pairs),
            "rows": [pair.row for pair in selected],
            "skipped": rows,
            "notes": [note.to_json() for note in sheet.notes],
        }
        typer.echo(json.dumps(summary, ensure_ascii=False, indent=2))
    else:
        typer.echo(
            f"{output}: {len(selected)} of {len(scored.pairs)} pairs, of {queries} queries, chosen around the score "
            f"{border:g}; fill in the column relevant with 0 or 1, then run: lychee calibrate {output}"
        )

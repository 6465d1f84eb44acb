"""`lychee calibrate`: find the threshold for a target on labelled pairs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Final, Literal

import typer
from lychee_client import ConfigurationError
from lychee_client.cli.options import Url
from lychee_client.cli.outcome import reported_errors, warn
from lychee_client.files import check_writable, write_atomically
from rich.console import Console
from rich.table import Table

from lychee_evaluate.calibration.evidence import check_evidence
from lychee_evaluate.calibration.pairs import read_pairs, select_instruction
from lychee_evaluate.calibration.report import (
    DEFAULT_RESAMPLES,
    CalibrationReport,
    check_resamples,
    draw_report,
    make_report,
)
from lychee_evaluate.calibration.threshold_search import DEFAULT_TARGET, format_threshold, parse_target
from lychee_evaluate.cli.pair_scoring import Encoding, report_notes, report_skipped, score_with_progress
from lychee_evaluate.cli.requirement import require

DEFAULT_OUTPUT: Final = Path("calibration.json")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(name="calibrate")(_calibrate)


def _calibrate(
    pairs: Annotated[Path, typer.Argument(metavar="PAIRS", help="Labelled pairs: CSV, .xlsx or JSON lines.")],
    target: Annotated[
        str, typer.Option("--target", metavar="TARGET", help="'precision>=P', 'recall>=R', or 'f1' for the best F1.")
    ] = DEFAULT_TARGET,
    instruction: Annotated[
        str | None,
        typer.Option("--instruction", metavar="TEXT", help="Use the pairs with this instruction, or without one."),
    ] = None,
    mapping: Annotated[
        Literal["platt", "isotonic"],
        typer.Option("--mapping", case_sensitive=False, help="How logits become probabilities."),
    ] = "platt",
    review_band: Annotated[
        bool, typer.Option("--review-band", help="Mark for review from the interval's lower end to the threshold.")
    ] = False,
    output: Annotated[
        Path, typer.Option("--output", metavar="PATH", help="Calibration file to write.")
    ] = DEFAULT_OUTPUT,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", metavar="PATH", help="Picture to write; by default the output's name with .png."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace existing files.")] = False,
    resamples: Annotated[
        int, typer.Option("--bootstrap", metavar="N", help="Resamples for the confidence interval.")
    ] = DEFAULT_RESAMPLES,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of everything random.")] = 0,
    encoding: Encoding = None,
    url: Url = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Find the threshold that reaches a target, on pairs that people have labelled.

    Columns of PAIRS: query and/or query_image, text and/or image (paths relative to the file), relevant (0 or 1, no or
    yes), and if wanted instruction; other common names, Chinese ones too, are understood. Writes a calibration file for
    LycheeClient(policy=Calibration.load(...)) and a picture.

    Example: lychee calibrate pairs.csv --target "precision>=0.95"
    """
    plot = plot or output.with_suffix(".png")
    with reported_errors():
        wanted = parse_target(target)
        check_resamples(resamples)
        require("matplotlib", "draws the picture")
        if plot.resolve() == output.resolve():
            raise ConfigurationError(f"calibration and picture cannot both be written to {output}; give another --plot")
        check_writable(output, replace=force)
        check_writable(plot, replace=force)
        sheet = read_pairs(pairs, labelled=True, encoding=encoding)
        report_notes(pairs, sheet)
        usable, left_out, instruction = select_instruction(sheet.pairs, instruction)
        skipped = [*sheet.skipped, *left_out]
        report_skipped(skipped)
        check_evidence(usable)
        scored = score_with_progress(url, usable, instruction)
        report_skipped(scored.skipped)
        report = make_report(scored, wanted, mapping=mapping, review_band=review_band, resamples=resamples, seed=seed)
        write_atomically(plot, draw_report(report, scored))
        report.calibration.save(output, replace=force)
    if as_json:
        rows = [skip.to_json() for skip in (*skipped, *scored.skipped)]
        notes = [note.to_json() for note in sheet.notes]
        files = {"output": str(output), "plot": str(plot), "skipped": rows, "notes": notes}
        typer.echo(json.dumps(report.to_json() | files, ensure_ascii=False, indent=2))
    else:
        _print(report, output, plot)


def _print(report: CalibrationReport, output: Path, plot: Path) -> None:
    calibration, reliability = report.calibration, report.reliability
    console = Console(highlight=False, markup=False)
    console.print(_table(report))
    after = "not measured" if reliability.after is None else f"{reliability.after:.3f}"
    lines = [
        f"threshold {format_threshold(calibration.threshold)} for {calibration.target}, "
        f"{calibration.confidence:.0%} interval "
        f"{format_threshold(calibration.threshold_low)} to {format_threshold(calibration.threshold_high)} "
        "(bootstrap of whole queries, because pairs of one query resemble each other)",
        f"there: precision {calibration.precision:.3f} (95% Clopper-Pearson interval from {report.precision_low:.3f}), "
        f"recall {calibration.recall:.3f}, F1 {calibration.f1:.3f}; average precision {report.average_precision:.3f}",
        f"rests on {calibration.pairs} pairs of {calibration.queries} queries, {calibration.positives} of them "
        f"relevant; an interval half as wide needs about {report.pairs_for_half_width} pairs",
        f"expected calibration error {reliability.before:.3f}, after the mapping {after} (cross-validated; "
        f"perfect probabilities would show {reliability.chance:.3f} with so few pairs)",
        f"model {calibration.model.model_id} revision {calibration.model.revision}, "
        f"{calibration.model.precision_text}; instruction: {calibration.instruction or 'none'}",
        f"written: {output} and {plot}",
    ]
    for line in lines:
        console.print(line, soft_wrap=True)
    for warning in report.warnings:
        warn(warning)


def _table(report: CalibrationReport) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("threshold", "accepted", "precision", "recall", "F1"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("")
    for row in report.table:
        is_chosen = row.threshold == report.calibration.threshold
        table.add_row(
            format_threshold(row.threshold) if is_chosen else f"{row.threshold:.2f}",
            str(row.accepted),
            "-" if row.precision is None else f"{row.precision:.3f}",
            f"{row.recall:.3f}",
            f"{row.f1:.3f}",
            "<- chosen" if is_chosen else "",
            style="bold" if is_chosen else None,
        )
    return table

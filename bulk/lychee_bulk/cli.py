"""The command `lychee bulk`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer
from lychee_client import ConfigurationError
from lychee_client.cli.options import (
    CalibrationOption,
    InstructionText,
    Language,
    MaxImgSize,
    PolicyOption,
    TemplateName,
    Url,
    choose_instruction,
    choose_policy,
)
from lychee_client.cli.outcome import reported_errors, tell, warn

MIB = 2**20


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(name="bulk")(bulk)


def bulk(
    source: Annotated[
        str,
        typer.Argument(metavar="INPUT", help="Parquet, JSON lines or CSV: a file, a folder, a pattern; s3://, gs://."),
    ],
    output: Annotated[
        str, typer.Argument(metavar="OUTPUT", help="Folder for Parquet; on a cluster one that all share.")
    ],
    url: Url = None,
    address: Annotated[
        str | None, typer.Option("--address", metavar="ADDRESS", help="Of a Ray cluster, or auto; else Ray runs here.")
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option("--column", metavar="MEANING=NAME", help="Where a column's name does not say it: query=frage."),
    ] = None,
    id_column: Annotated[
        str | None, typer.Option("--id", metavar="NAME", help="Column that names rows; else file and position do.")
    ] = None,
    keep_columns: Annotated[
        str | None, typer.Option("--keep-columns", metavar="A,B", help="Columns of the input for the output.")
    ] = None,
    file_format: Annotated[
        Literal["parquet", "jsonl", "csv"] | None, typer.Option("--format", help="Of INPUT, whatever its names say.")
    ] = None,
    instruction: InstructionText = None,
    template: TemplateName = None,
    language: Language = "en",
    policy: PolicyOption = "balanced",
    calibration: CalibrationOption = None,
    max_img_size: MaxImgSize = None,
    image_host: Annotated[
        list[str] | None,
        typer.Option("--image-host", metavar="HOST", help="Fetch images by URL from this host; without, from none."),
    ] = None,
    image_folder: Annotated[
        str | None, typer.Option("--image-folder", metavar="PATH", help="Of relative paths; else the folder of INPUT.")
    ] = None,
    actors: Annotated[
        int | None, typer.Option("--actors", min=1, help="How many score; else one for each node.")
    ] = None,
    in_flight: Annotated[int, typer.Option("--in-flight", min=1, help="Calls under way for each actor.")] = 16,
    documents_per_call: Annotated[int, typer.Option("--documents-per-call", min=1, help="Of one query.")] = 64,
    priority: Annotated[
        Literal["bulk", "interactive"],
        typer.Option("--priority", help="bulk: others overtake it; interactive: faster, for a server of its own."),
    ] = "bulk",
    rows: Annotated[int, typer.Option("--part-rows", min=1, help="Rows of one part: what is lost by a kill.")] = 1024,
    timeout_s: Annotated[float, typer.Option("--timeout", min=0.001, help="Seconds for one call.")] = 300.0,
    patience_s: Annotated[
        float, typer.Option("--patience", min=0.001, help="Seconds for which the server may be away.")
    ] = 600.0,
    store_mib: Annotated[
        int, typer.Option("--object-store-mb", min=80, help="MiB for rows on their way, where Ray runs here.")
    ] = 256,
    progress_s: Annotated[
        float, typer.Option("--progress", min=0, help="Seconds between lines without terminal.")
    ] = 30.0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Score all anew, and replace OUTPUT's run.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Score millions of pairs, on Ray Data: scores, decisions and errors as Parquet. The same command again goes on.

    Columns of INPUT: query and/or query_image, and document and/or document_image, or documents, a list. Images are
    paths, s3:// and gs://, data URLs or bytes. One bad row is an error row. OUTPUT is complete when it has _SUCCESS.

    Example: lychee bulk pairs.jsonl scores --keep-columns sku
    """
    with reported_errors():
        from lychee_bulk.options import ScoringOptions
        from lychee_bulk.run import UNIT, make_plan, run
        from lychee_bulk.units import UnitSize

        chosen = dict(_parse_column(one) for one in column or ())
        options = ScoringOptions(
            url=url,
            instruction=choose_instruction(instruction, template, language),
            policy=choose_policy(policy, calibration),
            max_img_size=max_img_size,
            priority=priority,
            in_flight=in_flight,
            documents_per_call=documents_per_call,
            timeout_s=timeout_s,
            patience_s=patience_s,
            image_folder=_folder_of(source) if image_folder is None else image_folder,
            image_hosts=tuple(image_host or ()),
        )
        kept = tuple(name for name in (keep_columns or "").split(",") if name)
        size = UnitSize(rows, UNIT.size_bytes)
        plan = make_plan(source, options, kind=file_format, chosen=chosen, id_column=id_column, kept=kept, size=size)
        report = run(
            plan,
            output,
            address=address,
            actors=actors,
            overwrite=overwrite,
            store_bytes=store_mib * MIB,
            tell=tell,
            interval_s=progress_s,
        )
    for warning in report.tally.warnings:
        warn(warning)
    if as_json:
        facts = {"output": output, "was_complete": report.was_complete, "resumed_rows": report.resumed_rows}
        speed = {"seconds": round(report.seconds, 3), "rows_per_second": round(report.rows_per_second, 3)}
        typer.echo(json.dumps({**facts, **report.tally.to_json(), **speed}, ensure_ascii=False, indent=2))
        return
    tally = report.tally
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in tally.to_json()["errors"].items())
    words = f"{output}: {tally.rows:,} rows, {tally.scored:,} pairs scored, {tally.failed:,} errors"
    words += f" ({kinds})" if kinds else ""
    if report.was_complete:
        typer.echo(f"{words}; it was complete already, --overwrite scores anew")
    else:
        typer.echo(f"{words}, {report.rows_per_second:,.1f} rows/s in {report.seconds:,.0f} s")


def _parse_column(text: str) -> tuple[str, str]:
    meaning, sign, name = text.partition("=")
    if not sign:
        raise ConfigurationError(f"--column is {text!r}; expected MEANING=NAME, for example query=frage")
    return meaning, name


def _folder_of(source: str) -> str:
    """Return the folder from which relative paths of images go on: the input's own, absolute where it is local."""
    plain = source.partition("*")[0]
    if "://" in plain:
        return plain if plain.endswith("/") else plain.rpartition("/")[0]
    path = Path(plain).absolute()
    return str(path if path.is_dir() else path.parent)

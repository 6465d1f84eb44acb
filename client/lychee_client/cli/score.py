"""`lychee score`: score one pair."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from lychee_client.cli.options import (
    AsJson,
    CalibrationOption,
    InstructionText,
    Language,
    MaxImgSize,
    ModelName,
    PolicyOption,
    QueryImage,
    QueryText,
    TemplateName,
    Url,
    choose_instruction,
    choose_policy,
    make_client,
    make_input,
)
from lychee_client.cli.outcome import reported_errors
from lychee_client.cli.rerank import result_to_json, timings_to_json
from lychee_client.cli.table import latency_line, result_line


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(name="score")(_score)


def _score(
    query: QueryText = None,
    query_image: QueryImage = None,
    text: Annotated[str | None, typer.Option("--text", metavar="TEXT", help="The document's text.")] = None,
    image: Annotated[
        Path | None, typer.Option("--image", metavar="PATH", help="The document's image, alone or with --text.")
    ] = None,
    url: Url = None,
    model: ModelName = None,
    policy: PolicyOption = "balanced",
    calibration: CalibrationOption = None,
    instruction: InstructionText = None,
    template: TemplateName = None,
    language: Language = "en",
    max_img_size: MaxImgSize = None,
    as_json: AsJson = False,
) -> None:
    """Score one document against a query.

    Example: lychee score --query "a cat" --text "The cat sleeps." --image cat.jpg
    """
    with reported_errors(), make_client(url, max_img_size, model) as client:
        response = client.rerank(
            make_input(query, query_image, "--query, --query-image"),
            [make_input(text, image, "--text, --image")],
            policy=choose_policy(policy, calibration),
            instruction=choose_instruction(instruction, template, language),
        )
        for failed in response.errors:
            raise failed.error
    (result,) = response.results
    if as_json:
        answer = result_to_json(result) | {
            "query": None if response.query is None else dataclasses.asdict(response.query),
            "timings": timings_to_json(response.timings),
            "instruction": response.instruction,
            "warnings": list(response.warnings),
        }
        typer.echo(json.dumps(answer, ensure_ascii=False, indent=2))
    else:
        console = Console()
        console.print(result_line(result))
        console.print(latency_line(response.timings))

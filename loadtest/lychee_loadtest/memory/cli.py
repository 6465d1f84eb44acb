"""The command ``lychee memory``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from lychee_client.cli.outcome import EXIT_FAILED, EXIT_NOT_RUNNING, reported_errors, tell, warn
from lychee_server.errors import SettingsError

if TYPE_CHECKING:
    from lychee_server.state import ServerState
    from rich.table import Table

    from lychee_loadtest.memory.layers import ModelMeasurement
    from lychee_loadtest.memory.plan import Need

__all__ = ["register"]

BATCHES: Final = (1, 2, 4, 8, 16, 24, 32)
TABLE_WIDTH: Final = 120
_DEFAULT_REPOSITORY: Final = Path("model_repository")
_EPILOG: Final = "Example: lychee memory --repository model_repository --batch 24 --images --limit 4GB"


def register(app: typer.Typer) -> None:
    """Add the command to the ``lychee`` application."""
    app.command(name="memory", epilog=_EPILOG)(_memory)


def _memory(
    repository: Annotated[
        Path | None,
        typer.Option(help="Predict what these models need. Without: what the running server uses, if one is loaded."),
    ] = None,
    config_name: Annotated[
        str | None, typer.Option(help="Variant of the models' configuration, as for `lychee load`.")
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Documents in one batch; the models' largest if not given.")
    ] = None,
    tokens: Annotated[
        int | None, typer.Option(min=1, help="Tokens of the longest text; what the model allows if not given.")
    ] = None,
    images: Annotated[bool, typer.Option("--images", help="Documents have images.")] = False,
    limit: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Does it fit? 4GB, 4096MiB, or 4g as Docker has it.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="PNG", help="Draw the layers by batch, with the limit as a line.")
    ] = None,
    json_path: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write everything; - prints it instead of the table.")
    ] = None,
    live: Annotated[bool, typer.Option("--live", help="What the running server uses, process by process.")] = False,
    plan: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With --live: compare with a file that --json wrote.")
    ] = None,
) -> None:
    """Say how much memory a deployment needs before it is deployed, or uses while it runs, in four layers.

    Before: each model is loaded in a process of its own as the server loads it, and small batches are run. Exit status:
    0 fits, or no limit given; 1 does not fit, too close to call, or not measured; 2 wrong usage; 3 no server (--live).
    """
    from lychee_server.state import read_state

    asks = repository is not None or limit is not None or batch is not None or tokens is not None or images
    with reported_errors():
        state = None if asks and not live else read_state()
        running = state if state is not None and state.is_running() else None
        if live or (running is not None and not asks):
            _report_live(running, plan, json_path)
            return
        if plan is not None:
            raise SettingsError("--plan compares a running server with a prediction; give --live as well.")
        chosen = repository or _DEFAULT_REPOSITORY
        _report_need(chosen, config_name, batch, tokens, limit, output, json_path, images=images)


def _report_live(state: ServerState | None, plan: Path | None, json_path: Path | None) -> None:
    from lychee_loadtest.memory.live import find_fragmentation, read_live
    from lychee_loadtest.memory.report import live_json, live_table, read_expected

    if state is None:
        tell("no server is running; start one with `lychee load`, or name models with --repository")
        raise typer.Exit(EXIT_NOT_RUNNING)
    expected = None if plan is None else read_expected(plan)
    found = read_live(state)
    warned = find_fragmentation(found, expected)
    if not _write_json(json_path, live_json(found, warned)):
        _print_table(live_table(found))
        for name, value in found.metrics.items():
            amount = f"{value / 1e6:,.1f} MB" if name.partition("{")[0].endswith("_bytes") else f"{value:.1%}"
            typer.echo(f"{name:40} {amount}")
        for device in found.devices:
            typer.echo(f"{device.name}: {device.used_bytes / 1e9:.2f} of {device.total_bytes / 1e9:.2f} GB in use")
    for entry in warned:
        warn(
            f"{entry.process} holds {entry.reserved_bytes / 1e6:,.0f} MB, and its model accounts for at most "
            f"{entry.accounted_bytes / 1e6:,.0f} MB: {entry.advice}"
        )


def _report_need(
    repository: Path,
    config_name: str | None,
    batch: int | None,
    tokens: int | None,
    limit: str | None,
    output: Path | None,
    json_path: Path | None,
    *,
    images: bool,
) -> None:
    from lychee_loadtest.memory.chart import draw_needs
    from lychee_loadtest.memory.plan import answer, describe_question, notes, plan_memory
    from lychee_loadtest.memory.report import need_table, needs_json, reserved_warnings
    from lychee_loadtest.memory.size_text import parse_size

    limit_bytes = None if limit is None else parse_size(limit)
    measurements = _measure(repository, config_name, tokens)
    if images and not any(model.reads_images for model in measurements):
        raise SettingsError(f"--images: no model in {repository} reads images. Leave it out.")
    asked = batch or max(1, *(model.max_batch_size for model in measurements if images or not model.reads_images))
    batches = sorted({*(size for size in BATCHES if size < asked), asked})
    needs = [plan_memory(measurements, size, images=images) for size in batches]
    need = needs[-1]
    found = None if limit_bytes is None else answer(need, limit_bytes)
    question = {"batch": asked, "images": images, "tokens": need.tokens, "limit_bytes": limit_bytes}
    verdict = {"question": question, "verdict": None if found is None else found.verdict}
    if not _write_json(json_path, needs_json(needs, measurements, repository.absolute(), verdict)):
        typer.echo(f"{describe_question(need)}, in MB of {'GPU' if need.on_gpu else 'main'} memory")
        _print_table(need_table(need))
        _print_batches(needs)
        for note in notes(need):
            typer.echo(f"  {note}")
        if not need.on_gpu:
            typer.echo("  the gateway comes on top: about 260 MB")
    for line in reserved_warnings(measurements):
        warn(line)
    if output is not None:
        draw_needs(needs, limit_bytes, output)
        typer.echo(f"written: {output}", err=True)
    if found is not None:
        typer.echo(found.sentence, err=json_path == Path("-"))
        if found.verdict != "fits":
            raise typer.Exit(EXIT_FAILED)


def _measure(repository: Path, config_name: str | None, tokens: int | None) -> list[ModelMeasurement]:
    from rich.console import Console

    from lychee_loadtest.memory.deployment import read_deployment
    from lychee_loadtest.memory.measuring import measure_model

    console = Console(stderr=True)
    with console.status("measuring") as status:
        return [
            measure_model(model, tokens, on_step=lambda step: status.update(f"measuring {step}"))
            for model in read_deployment(repository, config_name)
        ]


def _print_batches(needs: list[Need]) -> None:
    parts = [f"{need.batch}: {need.serving_bytes / 1e6:,.0f} +- {need.error_bytes / 1e6:,.0f}" for need in needs]
    typer.echo(f"by batch, shared libraries once: {'; '.join(parts)}")


def _print_table(table: Table) -> None:
    from rich.console import Console

    console = Console()
    if not console.is_terminal:  # a pipe has no width, and 80 columns would cut the numbers
        console.width = TABLE_WIDTH
    console.print(table)


def _write_json(path: Path | None, data: dict[str, Any]) -> bool:
    """Write or print the data. Return whether it took the place of the table."""
    if path is None:
        return False
    text = json.dumps(data, ensure_ascii=False, indent=2) + "\n"
    if path == Path("-"):
        typer.echo(text, nl=False)
        return True
    from lychee_client.files import write_atomically

    write_atomically(path, text.encode())
    return False

"""The command ``lychee tune``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from lychee_client.cli.outcome import reported_errors

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command to the ``lychee`` application."""
    app.command()(tune)


def tune(
    repository: Annotated[
        Path, typer.Option(envvar="LYCHEE_REPOSITORY", help="Folder that `lychee export` wrote.")
    ] = Path("model_repository"),
    name: Annotated[str, typer.Option(help="Of the variant: configs/<name>.pbtxt of each model.")] = "tuned",
    modality: Annotated[
        Literal["text", "image", "both"], typer.Option(case_sensitive=False, help="What to measure.")
    ] = "both",
    quick: Annotated[bool, typer.Option("--quick", help="A minute instead of five, with more noise.")] = False,
    output: Annotated[
        Path | None, typer.Option(help="Folder for the curves as PNG and JSON; default: tuning in the state folder.")
    ] = None,
    latency_limit_ms: Annotated[
        float | None, typer.Option(min=0, help="Largest throughput with a p99 of at most this.")
    ] = None,
    max_memory_mb: Annotated[
        int | None, typer.Option(min=1, help="Choose nothing that takes more MiB, by model.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a variant that this command did not write.")] = False,
    profile: Annotated[
        str | None, typer.Option(help="Measure nothing; write a starting point from the literature.")
    ] = None,
    list_profiles: Annotated[bool, typer.Option("--list-profiles", help="List the profiles, and exit.")] = False,
) -> None:
    """Find the batch sizes, instances, threads and queue delays for this machine by measuring, and say why.

    Starts a Triton of its own; a server that runs already would disturb the numbers. Takes about five minutes for the
    bundled model. Afterwards: lychee load --config-name tuned.
    """
    if list_profiles:
        _print_profiles()
        return
    from lychee_server import defaults
    from lychee_server.termination import raise_on_sigterm

    from lychee_loadtest.tune.choice import Bounds
    from lychee_loadtest.tune.command import Target, apply_profile
    from lychee_loadtest.tune.command import tune as run
    from lychee_loadtest.tune.study import FULL, QUICK
    from lychee_loadtest.tune.workloads import MODELS

    target = Target(repository, name, tuple(MODELS) if modality == "both" else (modality,), force)
    limits = Bounds(latency_limit_ms, None if max_memory_mb is None else max_memory_mb * defaults.MIB)
    with reported_errors():
        if profile is not None:
            apply_profile(target, profile, report=typer.echo)
            return
        with raise_on_sigterm():
            run(
                target,
                QUICK if quick else FULL,
                limits,
                output or defaults.state_dir() / "tuning",
                say=lambda line: typer.echo(line, err=True),
                report=typer.echo,
            )


def _print_profiles() -> None:
    from lychee_loadtest.tune.profiles import ORIGIN, read_profiles

    typer.echo(f"Batch sizes, {ORIGIN}:")
    for name, (hardware, batches) in read_profiles().items():
        typer.echo(f"  {name:16} texts {batches['text']:3}, images {batches['image']:3}  {hardware}")

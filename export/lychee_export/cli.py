"""The command ``lychee export``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from .quantization import PRECISIONS, Precision

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command to the ``lychee`` application."""
    app.command("export")(_export)


def _export(
    checkpoint: Annotated[str, typer.Argument(help="A bundled checkpoint (lychee-mini) or a checkpoint folder.")],
    repository: Annotated[
        Path, typer.Option(help="Model repository to write into.", envvar="LYCHEE_REPOSITORY")
    ] = Path("model_repository"),
    precision: Annotated[
        str, typer.Option(help=f"Bits per weight: {', '.join(PRECISIONS)}.", metavar="PRECISION")
    ] = "fp32",
) -> None:
    """Turn a checkpoint into a validated Triton model repository."""
    # torch takes seconds to import; the other commands of lychee do not wait for it
    from .errors import ExportError
    from .exporter import export_checkpoint

    started = time.monotonic()

    def progress(line: str) -> None:
        typer.echo(f"{time.monotonic() - started:6.1f} s  {line}")

    chosen = _precision(precision)
    try:
        report = export_checkpoint(checkpoint, repository, chosen, progress)
    except ExportError as error:
        typer.echo(f"export failed: {error}", err=True)
        raise typer.Exit(1) from error
    for name, size_bytes in report.sizes_bytes.items():
        progress(f"{name}: {size_bytes / 1e3:,.0f} kB")
    for provider, parity in report.parity.items():
        progress(
            f"{provider}: largest error {parity.max_abs_error:.1e}, of a score {parity.max_score_error:.1e}, of a "
            f"logit {parity.max_logit_error:.1e}; ranking order kept (tau {parity.kendall_tau:.2f}); batch and padding "
            f"move a score by {parity.batch_invariance:.1e}, a logit by {parity.logit_batch_invariance:.1e}"
        )
    typer.echo(f"{repository} is ready: start it with `lychee load`")


def _precision(value: str) -> Precision:
    for precision in PRECISIONS:
        if value == precision:
            return precision
    raise typer.BadParameter(f"unknown precision {value!r}; known are {', '.join(PRECISIONS)}")

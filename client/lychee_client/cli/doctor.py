"""`lychee doctor`: does a server answer, and does it score as it should."""

from __future__ import annotations

import typer

from lychee_client._client import LycheeClient
from lychee_client.cli.options import Url, reported_errors


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(name="doctor")(_doctor)


def _doctor(url: Url = None) -> None:
    """Check that a server answers and that its golden pairs score as they did at the export."""
    with reported_errors(), LycheeClient(url) as client:
        manifest = client.manifest
        typer.echo(f"server   ok: {manifest.model_id} revision {manifest.revision}, {manifest.precision}")
        report = client.check_golden_pairs()
    for number, pair in enumerate(report.pairs, start=1):
        verdict = "ok" if pair.abs_error <= report.tolerance else "DRIFT"
        typer.echo(f"golden {number} {verdict}: expected {pair.expected:.4f}, measured {pair.measured:.4f}")
    summary = f"largest difference {report.max_abs_error:.4f}, allowed {report.tolerance:.4f}"
    if not report.passed:
        typer.echo(
            f"lychee: the server's scores have drifted ({summary}); export the model again and restart the server",
            err=True,
        )
        raise typer.Exit(1)
    typer.echo(f"scores   ok: {summary}")

"""The commands that this distribution adds to `lychee`: calibrate, sample, ab-report and instructions."""

import typer

from lychee_evaluate.cli import ab_report, calibrate, instructions, sample

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    for command in (calibrate, sample, instructions, ab_report):
        command.register(app)

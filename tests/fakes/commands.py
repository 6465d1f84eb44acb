"""The commands of one distribution, as `lychee` has them."""

import typer
from lychee_evaluate.cli import register

__all__ = ["evaluate"]

evaluate = typer.Typer(pretty_exceptions_enable=False)
register(evaluate)

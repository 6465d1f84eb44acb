"""`lychee ab-report`: compare two variants of an experiment."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from lychee_client.cli.outcome import reported_errors, tell
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lychee_evaluate.cli.model_report import print_models, report_models
from lychee_evaluate.cli.requirement import require
from lychee_evaluate.experiments.ab_test import (
    DEFAULT_ALPHA,
    DEFAULT_EFFECT,
    Comparison,
    Finding,
    MetricComparison,
    compare,
)
from lychee_evaluate.experiments.users import ExperimentUsers, Metric, read_users

MAX_DAMAGED_LINES: Final = 20
_NAMES: Final[dict[Metric, str]] = {
    "impressions": "documents shown per user",
    "clicks": "clicks per user",
    "dwell_s": "seconds of reading per user",
    "conversions": "share of users who converted",
    "click_through": "share of a user's rankings with a click",
    "click_mrr": "reciprocal rank of the best click per ranking",
    "conversion_value": "value of conversions per user",
}
_SHARES: Final = frozenset({"click_through", "conversions"})
_COLOURS: Final[dict[Finding, str]] = {"higher": "green", "lower": "magenta", "none": "", "undecided": "yellow"}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(name="ab-report")(_ab_report)


def _ab_report(
    files: Annotated[
        list[Path], typer.Argument(metavar="PATHS...", help="Logs of ExperimentLog, or folders that gateways wrote.")
    ],
    control: Annotated[str, typer.Option("--control", metavar="NAME", help="Variant to compare with.")] = "control",
    treatment: Annotated[
        str | None, typer.Option("--treatment", metavar="NAME", help="Variant to compare, where there are several.")
    ] = None,
    experiment: Annotated[
        str | None, typer.Option("--experiment", metavar="NAME", help="Which one, where the files hold several.")
    ] = None,
    alpha: Annotated[
        float, typer.Option("--alpha", help="Chance of a finding in any metric where the variants do not differ.")
    ] = DEFAULT_ALPHA,
    effect: Annotated[
        float, typer.Option("--effect", help="Relative difference for which to say how many users are needed.")
    ] = DEFAULT_EFFECT,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Compare documents shown, clicks, reading time and conversions of two variants of an experiment.

    The unit is the user, because what one user sees and does hangs together. Decide on the number of users before the
    start and look once, at the end: whoever looks every day and stops at the first finding finds what is not there.

    Where a gateway had a canary or a shadow, it also compares the models: rankings, decisions, times and failures.

    Example: lychee ab-report logs/threshold-*.jsonl
    """
    with reported_errors():
        require("scipy", "compares the variants")
        users = read_users(files, experiment)
        for line in users.damaged[:MAX_DAMAGED_LINES]:
            tell(f"skipped {line}")
        if len(users.damaged) > MAX_DAMAGED_LINES:
            tell(f"skipped {len(users.damaged) - MAX_DAMAGED_LINES} more lines")
        comparison = None
        if len(users.variants) > 1 or not users.pairs:
            comparison = compare(users, control=control, treatment=treatment, alpha=alpha, effect=effect)
        models = report_models(users, alpha)
    if as_json:
        data = {"experiment": users.experiment} if comparison is None else to_json(comparison, users)
        data |= {"unit": users.unit, "damaged_lines": list(users.damaged), **dataclasses.asdict(models)}
        typer.echo(json.dumps(data, ensure_ascii=False, indent=2))
        return
    if comparison is not None:
        _print(comparison, users)
    print_models(models)


def to_json(comparison: Comparison, users: ExperimentUsers) -> dict[str, Any]:
    """Return a comparison as JSON types, with a verdict in words for every metric."""
    data = dataclasses.asdict(comparison)
    for entry, metric in zip(data["metrics"], comparison.metrics, strict=True):
        entry["verdict"] = verdict(metric, comparison)
    data["warnings"] = warnings(comparison, users)
    data["damaged_lines"] = list(users.damaged)
    return data


def verdict(metric: MetricComparison, comparison: Comparison) -> str:
    """Say in one or two sentences what the data show in one metric."""
    name = _NAMES[metric.metric]
    if metric.obstacle is not None:
        return f"cannot be compared: {metric.obstacle}{_needed(metric, comparison)}"
    change = "" if metric.control == 0 else f" ({metric.difference / metric.control:+.1%})"
    if metric.finding == "none":
        return (
            f"no difference found in {name}; the true one may be anything from {_interval(metric)}"
            f"{_needed(metric, comparison)}"
        )
    return (
        f"{comparison.treatment!r} is {metric.finding} in {name}: {_value(metric.treatment, metric)} against "
        f"{_value(metric.control, metric)}{change}; "
        f"the true difference is likely from {_interval(metric)}"
    )


def warnings(comparison: Comparison, users: ExperimentUsers) -> list[str]:
    """Return what makes the comparison doubtful, in words."""
    total = comparison.control_users + comparison.treatment_users
    found = list(users.notes)
    if not comparison.sample_ratio_ok:
        found.append(
            f"the numbers of users do not fit the planned split (p = {comparison.sample_ratio_p_value:.1g}): one "
            "variant loses users, or its log lines; find out why before believing any difference"
        )
    needed = {
        metric.metric: metric.users_needed
        for metric in comparison.metrics
        if metric.finding in ("none", "undecided") and metric.users_needed is not None and metric.users_needed > total
    }
    if needed:
        needs = ", ".join(f"{_about(count)} for {name}" for name, count in needed.items())
        found.append(
            f"too few users to rely on finding a difference of {comparison.effect:.1%}: there are {total:,}, needed "
            f"are {needs}"
        )
    return found


def _needed(metric: MetricComparison, comparison: Comparison) -> str:
    total = comparison.control_users + comparison.treatment_users
    if metric.users_needed is None or metric.users_needed <= total:
        return ""
    return f"; to find {comparison.effect:.1%}, {_about(metric.users_needed)} users are needed, there are {total:,}"


def _about(count: int) -> str:
    """Round up to two digits: the estimate is no better."""
    unit = 10 ** max(0, len(str(count)) - 2)
    return f"about {-(-count // unit) * unit:,}"


def _value(value: float, metric: MetricComparison) -> str:
    return f"{value:.2%}" if metric.metric in _SHARES else f"{value:.4g}"


def _interval(metric: MetricComparison) -> str:
    if metric.low is None or metric.high is None:
        return ""
    return f"{_signed(metric.low, metric)} to {_signed(metric.high, metric)}"


def _signed(value: float, metric: MetricComparison) -> str:
    return f"{100 * value:+.2f} points" if metric.metric in _SHARES else f"{value:+.3g}"


def _print(comparison: Comparison, users: ExperimentUsers) -> None:
    console = Console()
    units = f"{users.unit}s"
    console.print(
        Text(
            f"experiment {comparison.experiment!r}: {comparison.control!r} {comparison.control_users:,} {units}, "
            f"{comparison.treatment!r} {comparison.treatment_users:,} {units}"
        )
    )
    if users.unit == "call":
        console.print(Text("calls were assigned, not users: each call counts as a user of its own"))
    table = Table(box=None, pad_edge=False)
    table.add_column("metric", no_wrap=True)
    for heading in (comparison.control, comparison.treatment):
        table.add_column(Text(heading), justify="right", no_wrap=True)
    for heading in ("difference", "interval"):
        table.add_column(heading, justify="right")
    for metric in comparison.metrics:
        table.add_row(
            metric.metric,
            _value(metric.control, metric),
            _value(metric.treatment, metric),
            Text(_signed(metric.difference, metric), style=_COLOURS[metric.finding]),
            "" if metric.confidence is None else f"{_interval(metric)} ({metric.confidence:.1%})",
        )
    console.print(table)
    for metric in comparison.metrics:
        console.print(Text(f"{metric.metric}: {verdict(metric, comparison)}", style=_COLOURS[metric.finding]))
    for warning in warnings(comparison, users):
        console.print(Text(f"warning: {warning}", style="yellow"))

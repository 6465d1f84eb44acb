"""The command ``lychee report``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from lychee_client.cli.outcome import reported_errors, tell

if TYPE_CHECKING:
    from lychee_loadtest.results.results import GeneratorHealth, LoadTestResults, Verdict

__all__ = ["register", "report_lines"]


def register(app: typer.Typer) -> None:
    """Add the command to the ``lychee`` application."""
    app.command()(report)


def report(
    results: Annotated[Path, typer.Argument(metavar="FILE.json", help="What a load test wrote with --results.")],
    output: Annotated[
        Path | None, typer.Option("--output", metavar="PNG", help="The chart; FILE.png beside the file if not given.")
    ] = None,
    chart: Annotated[bool, typer.Option("--chart/--no-chart", help="Draw the chart, or print the table alone.")] = True,
) -> None:
    """Print a load test's table, and draw latency against throughput and the time course.

    Example: lychee report loadtest/results/smoke.json
    """
    from lychee_loadtest.results.chart import draw_results
    from lychee_loadtest.results.results import read_results

    with reported_errors():
        run = read_results(results)
        for line in report_lines(run):
            typer.echo(line)
        if chart and not run.windows:
            tell(f"no chart: {results} has no whole window of time; let the test run longer")
        elif chart:
            path = output or results.with_suffix(".png")
            draw_results(run, path)
            typer.echo(f"chart: {path}")


def report_lines(run: LoadTestResults) -> Iterator[str]:
    """Yield the table: calls by name and in sum, the steps, the generator, the limits."""
    machine = run.machine
    where = f"load generator on {machine.get('cpu')}, {machine.get('cores')} cores"
    yield f"{run.duration_s:.0f} s from {run.started_at}, {where}"
    width = max([len(entry.name) for entry in (*run.names, *run.sums)], default=0)
    yield (
        f"{'calls':{width}} {'answered':>8} {'failed':>6} {'refused':>7} {'calls/s':>8} {'docs/s':>8} "
        f"{'p50 ms':>8} {'p90 ms':>8} {'p99 ms':>8} {'max ms':>8}"
    )
    for entry in (*run.names, *run.sums):
        latencies = " ".join(
            f"{_number(value):>8}" for value in (entry.p50_ms, entry.p90_ms, entry.p99_ms, entry.max_ms)
        )
        yield (
            f"{entry.name:{width}} {entry.calls:8} {entry.failures:6} {entry.overloads:7} {entry.calls_per_s:8.2f} "
            f"{entry.documents_per_s:8.1f} {latencies}"
        )
    yield from _step_lines(run)
    yield _health_line(run.generator)
    for message, count in run.messages.items():
        yield f"{count} x {message}"
    for verdict in run.verdicts:
        yield _verdict_line(verdict)


def _step_lines(run: LoadTestResults) -> Iterator[str]:
    if len(run.steps) < 2:
        return
    for step in run.steps:
        load = f"{step.users} users" if step.arrival_rate_per_s is None else f"{step.arrival_rate_per_s:g} arrivals/s"
        lanes = "; ".join(
            f"{lane.name} {lane.documents_per_s:.1f} docs/s, "
            f"p50 {_number(lane.p50_ms)} ms, p99 {_number(lane.p99_ms)} ms"
            for lane in step.lanes
        )
        yield f"step of {load}, {step.start_s:.0f} to {step.start_s + step.duration_s:.0f} s: {lanes}"


def _health_line(health: GeneratorHealth) -> str:
    line = (
        f"generator: {health.processes} process{'es' if health.processes != 1 else ''}, event loop late by "
        f"{_number(health.hub_lag_p50_ms)} ms at p50, {_number(health.hub_lag_p99_ms)} at p99, "
        f"{_number(health.hub_lag_max_ms)} at most; CPU {_share(health.cpu_share_mean)} of a core, "
        f"{_share(health.cpu_share_max)} at most"
    )
    if health.arrivals:
        line += (
            f"; {health.arrivals} arrivals, late by {_number(health.lateness_p99_ms)} ms at p99, "
            f"{health.arrivals_waited} found all users busy, {health.arrivals_unserved} were never sent"
        )
    return line


def _verdict_line(verdict: Verdict) -> str:
    sign = ">=" if verdict.at_least else "<="
    measured = "nothing" if verdict.measured is None else f"{verdict.measured:.4g}"
    outcome = "met   " if verdict.met else "BROKEN"
    return f"{outcome} {verdict.subject}: {verdict.measure} {measured}, limit {sign} {verdict.limit:g}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"

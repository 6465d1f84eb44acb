"""The command ``lychee autoscale-sim``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Final, Literal

import typer
from lychee_client.cli.outcome import reported_errors

__all__ = ["register"]

_EPILOG: Final = 'Example: lychee autoscale-sim --tuned tuned.json --inputs "64 tokens" --start-up-s 120 --p99-ms 2000'


def register(app: typer.Typer) -> None:
    """Add the command to the ``lychee`` application."""
    app.command(name="autoscale-sim", epilog=_EPILOG)(_autoscale_sim)


def _autoscale_sim(
    tuned: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What `lychee tune` measured; without: lychee-mini on 2 cores.")
    ] = None,
    inputs: Annotated[str | None, typer.Option(help='Which curve of it, such as "64 tokens"; else the first.')] = None,
    vary: Annotated[
        Literal["target", "behavior", "start-up"], typer.Option(case_sensitive=False, help="What to compare.")
    ] = "target",
    target_ms: Annotated[
        list[float] | None, typer.Option(min=0.1, help="Of the time in the queue; may be repeated.")
    ] = None,
    peak: Annotated[float, typer.Option(min=0.1, help="Replicas that the afternoon keeps wholly busy.")] = 2.0,
    spikes: Annotated[int, typer.Option(min=0, help="Sudden spikes, of 3 to 5 times the load for minutes.")] = 3,
    hours: Annotated[int, typer.Option(min=1, max=24, help="How much of the day, from midnight.")] = 24,
    seeds: Annotated[int, typer.Option(min=1, help="How many days to play; the table has their medians.")] = 3,
    start_up_s: Annotated[float, typer.Option(min=0, help="Until a new replica takes calls.")] = 30.0,
    min_replicas: Annotated[int, typer.Option(min=1, help="Fewest replicas.")] = 2,
    max_replicas: Annotated[int, typer.Option(min=1, help="Most replicas.")] = 20,
    p99_ms: Annotated[float, typer.Option(min=1, help="What the p99 of the whole day is to keep within.")] = 1000.0,
    price: Annotated[float, typer.Option(min=0, help="Of one replica for an hour.")] = 0.1,
    output: Annotated[Path | None, typer.Option(metavar="PNG", help="Draw the comparison.")] = None,
    json_path: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write everything; - prints it instead of the table.")
    ] = None,
) -> None:
    """Simulate a day with spikes, and say which target of the autoscaler keeps the latency, and what it costs.

    Nothing is started: service times come from `lychee tune`, everything else from Kubernetes' documented algorithm.
    Exit status: 0 if a case keeps the p99, 1 if none does.
    """
    from lychee_client.cli.outcome import EXIT_FAILED
    from lychee_client.files import write_atomically
    from lychee_server.errors import SettingsError

    from lychee_loadtest.autoscaling.chart import draw_comparison
    from lychee_loadtest.autoscaling.comparison import TARGETS_MS, Scenario, cases, cheapest, compare
    from lychee_loadtest.autoscaling.demand import HOUR_S, Day
    from lychee_loadtest.autoscaling.report import table_lines, to_json
    from lychee_loadtest.autoscaling.service import MEASURED, read_service_times
    from lychee_loadtest.autoscaling.simulation import Cluster

    with reported_errors():
        if min_replicas > max_replicas:
            raise SettingsError(f"--min-replicas is {min_replicas}; expected at most --max-replicas, {max_replicas}")
        service = read_service_times(tuned or MEASURED, inputs)
        day = Day(peak=peak, spikes=spikes, duration_s=hours * HOUR_S)
        scenario = Scenario(service, day, seeds, p99_ms / 1e3, price)
        cluster = Cluster(min_replicas, max_replicas, start_up_s)
        chosen = cases(vary, cluster, target_ms or TARGETS_MS, service, day)
        found = compare(scenario, chosen, on_done=lambda name: typer.echo(f"{name}: done", err=True))
        best = cheapest(found, p99_ms)
        text = json.dumps(to_json(scenario, found), indent=1) + "\n"
        if json_path == Path("-"):
            typer.echo(text, nl=False)
        else:
            typer.echo(f"{service.name} ({service.where}); {service.rows_per_s:.0f} rows/s a replica")
            typer.echo("\n".join(table_lines(found, scenario.limit_s)))
            if json_path is not None:
                write_atomically(json_path, text.encode())
        if output is not None:
            waits = cheapest([pair for pair in found if pair[0].policy.goals[0].metric == "queue"], p99_ms)
            draw_comparison(scenario, found, [chosen[0] if waits is None else waits[0], chosen[-1]], output)
        if best is None:
            typer.echo(f"no case keeps the p99 within {p99_ms:g} ms; more replicas or a shorter start-up may", err=True)
            raise typer.Exit(EXIT_FAILED)
        typer.echo(f"cheapest with a p99 within {p99_ms:g} ms: {best[0].policy.name}", err=json_path == Path("-"))

"""The end of a run: results, warnings about the generator, limits, exit code."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final

from locust.env import Environment

from lychee_loadtest.locust.limits import Limit, check_limits
from lychee_loadtest.locust.options import LoadOptions
from lychee_loadtest.locust.run_record import RunRecord
from lychee_loadtest.results.results import GeneratorHealth, LoadTestResults, Verdict, write_results

__all__ = ["describe_verdict", "doubt_generator", "finish_run"]

EXIT_LIMIT_BROKEN: Final = 1
# Above these the generator is named in a warning, limits or not.
DOUBTFUL_LAG_P99_MS: Final = 100.0
DOUBTFUL_CPU_SHARE: Final = 0.9
DOUBTFUL_WAITED_SHARE: Final = 0.01


def finish_run(environment: Environment, record: RunRecord, options: LoadOptions, limits: Sequence[Limit]) -> None:
    """Write the results, print what is wrong, and set Locust's exit code."""
    logger = logging.getLogger(__name__)
    results = record.results(_settings(environment, options))
    results = replace(results, verdicts=check_limits(limits, results))
    for doubt in doubt_generator(results.generator):
        logger.warning(doubt)
    for verdict in results.verdicts:
        (logger.info if verdict.met else logger.error)(describe_verdict(verdict))
    if options.results is not None:
        write_results(results, options.results)
        logger.info(f"results: {options.results}")
    _set_exit_code(environment, results)


def doubt_generator(health: GeneratorHealth) -> Iterator[str]:
    """Yield what makes the numbers those of the generator, in words."""
    advice = "the latencies are in part the load generator's own: give it more --processes, or a machine of its own"
    if health.hub_lag_p99_ms is not None and health.hub_lag_p99_ms > DOUBTFUL_LAG_P99_MS:
        yield f"event loop late by {health.hub_lag_p99_ms:.0f} ms at p99, above {DOUBTFUL_LAG_P99_MS:g}: {advice}"
    if health.cpu_share_max is not None and health.cpu_share_max > DOUBTFUL_CPU_SHARE:
        yield f"event loop used {health.cpu_share_max:.0%} of a core, above {DOUBTFUL_CPU_SHARE:.0%}: {advice}"
    if health.lateness_p99_ms is not None and health.lateness_p99_ms > DOUBTFUL_LAG_P99_MS:
        yield f"arrivals began {health.lateness_p99_ms:.0f} ms late at p99, above {DOUBTFUL_LAG_P99_MS:g}: {advice}"
    if health.arrivals_waited > DOUBTFUL_WAITED_SHARE * health.arrivals:
        yield (
            f"{health.arrivals_waited} of {health.arrivals} arrivals found all users busy, and "
            f"{health.arrivals_unserved} were never sent: more --users send them in "
            "time; if those do not help, the server does not keep up"
        )


def describe_verdict(verdict: Verdict) -> str:
    """Return a limit, what was measured, and whether it held, in one line."""
    sign = ">=" if verdict.at_least else "<="
    measured = "nothing" if verdict.measured is None else f"{verdict.measured:.4g}"
    outcome = "met" if verdict.met else "BROKEN"
    return f"{outcome}: {verdict.subject} {verdict.measure} {sign} {verdict.limit:g}, measured {measured}"


def _set_exit_code(environment: Environment, results: LoadTestResults) -> None:
    if not results.met:
        environment.process_exit_code = EXIT_LIMIT_BROKEN
    elif results.verdicts and environment.runner is not None and not environment.runner.exceptions:
        environment.process_exit_code = 0  # the limits say how many failures are too many


def _settings(environment: Environment, options: LoadOptions) -> dict[str, str | int | float | bool | None]:
    parsed = environment.parsed_options
    assert parsed is not None
    values = asdict(options)
    settings = {**values.pop("mix"), **values}
    settings |= {
        "users": parsed.num_users,
        "processes": parsed.processes,
        "user_classes": ", ".join(user_class.__name__ for user_class in environment.user_classes),
    }
    return {name: str(value) if isinstance(value, Path) else value for name, value in settings.items()}

"""Service-level limits: what a run may not exceed, and what it has to reach, from a small TOML file.

    [generator]
    hub_lag_p99_ms = 100

    [calls."interactive"]
    p99_ms = 500
    failure_share = 0
    min_calls_per_s = 5

A section names calls as the results do: "all", a lane ("bulk"), a transport with a lane ("gRPC interactive"), or with a
modality, too ("REST interactive/image"). Whatever matches nothing is an error or a broken limit, and never passes.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lychee_loadtest.results.results import CallStatistics, GeneratorHealth, LoadTestResults, Verdict

__all__ = ["Limit", "LimitsError", "check_limits", "read_limits"]

GENERATOR: Final = "generator"
_CALLS: Final = "calls"
_LATENCIES: Final = ("p50_ms", "p90_ms", "p99_ms", "max_ms")
_CALL_MEASURES: Final = (
    *_LATENCIES,
    "failure_share",
    "overload_share",
    "min_calls",
    "min_calls_per_s",
    "min_documents_per_s",
)
_GENERATOR_MEASURES: Final = (
    "hub_lag_p50_ms",
    "hub_lag_p99_ms",
    "hub_lag_max_ms",
    "cpu_share_mean",
    "cpu_share_max",
    "lateness_p50_ms",
    "lateness_p99_ms",
    "lateness_max_ms",
    "waited_share",
    "unserved_share",
)
_LEAST: Final = "min_"


class LimitsError(ValueError):
    """A limits file cannot be used; nothing was measured."""


@dataclass(frozen=True, slots=True)
class Limit:
    """One line of a limits file.

    Attributes:
        subject: The name of the calls, or "generator".
        measure: What is limited; with the prefix "min_" the value is the least that is wanted.
        value: The limit, in the unit that the measure ends with; a share is from 0 to 1.
    """

    subject: str
    measure: str
    value: float


def read_limits(path: Path, known_names: Iterable[str]) -> tuple[Limit, ...]:
    """Read a limits file.

    Args:
        path: A TOML file.
        known_names: The names of calls that a run may have.

    Raises:
        LimitsError: It cannot be read, names unknown calls or measures, or holds no limit at all.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise LimitsError(
            f"{path} cannot be read: {error}; expected a TOML file like smoke.toml of lychee_loadtest/locust"
        ) from error
    _check_names(path, "section", content, (GENERATOR, _CALLS))
    calls = _table(path, _CALLS, content.get(_CALLS, {}))
    _check_names(path, f'section "{_CALLS}."', calls, tuple(known_names))
    limits = _read_section(path, GENERATOR, content.get(GENERATOR, {}), _GENERATOR_MEASURES)
    for name, section in calls.items():
        limits += _read_section(path, name, section, _CALL_MEASURES)
    if not limits:
        raise LimitsError(f"{path} holds no limit; expected at least one, as in smoke.toml of lychee_loadtest/locust")
    return tuple(limits)


def check_limits(limits: Iterable[Limit], results: LoadTestResults) -> tuple[Verdict, ...]:
    """Compare a run with the limits. What was not measured, because there were no such calls, breaks its limit."""
    calls = {statistics.name: statistics for statistics in (*results.sums, *results.names)}
    verdicts = []
    for limit in limits:
        if limit.subject == GENERATOR:
            measured = _measure_generator(results.generator, limit.measure)
        else:
            measured = _measure_calls(calls.get(limit.subject), limit.measure)
        at_least = limit.measure.startswith(_LEAST)
        met = measured is not None and (measured >= limit.value if at_least else measured <= limit.value)
        verdicts.append(Verdict(limit.subject, limit.measure, limit.value, measured, at_least, met))
    return tuple(verdicts)


def _measure_calls(statistics: CallStatistics | None, measure: str) -> float | None:
    if statistics is None or statistics.attempts == 0:
        return None
    if measure == "failure_share":
        return statistics.failures / statistics.attempts
    if measure == "overload_share":
        return statistics.overloads / statistics.attempts
    value: float | None = getattr(statistics, measure.removeprefix(_LEAST))
    return value


def _measure_generator(health: GeneratorHealth, measure: str) -> float | None:
    if not measure.endswith("_share"):
        value: float | None = getattr(health, measure)
        return value
    if health.arrivals == 0:
        return None
    return (health.arrivals_waited if measure == "waited_share" else health.arrivals_unserved) / health.arrivals


def _read_section(path: Path, name: str, section: Any, measures: tuple[str, ...]) -> list[Limit]:
    table = _table(path, name, section)
    _check_names(path, f'limit in "{name}"', table, measures)
    for measure, value in table.items():
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not 0 <= value < math.inf:
            raise LimitsError(
                f'{path}: {measure} of "{name}" is {value!r}; expected a number that is finite and not negative'
            )
    return [Limit(name, measure, float(value)) for measure, value in table.items()]


def _table(path: Path, name: str, section: Any) -> Mapping[str, Any]:
    if not isinstance(section, dict):
        raise LimitsError(f'{path}: "{name}" is {section!r}; expected a section with limits')
    return section


def _check_names(path: Path, what: str, given: Iterable[str], known: tuple[str, ...]) -> None:
    for name in given:
        if name not in known:
            raise LimitsError(f"{path}: there is no {what} {name!r}; expected one of {', '.join(known)}")

"""The users of an experiment: what its log says, added up per user."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, NoReturn, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
from lychee_client import ConfigurationError, InvalidInputError
from lychee_client.experiments.events import EVENT_KINDS, MAX_EVENT_VALUE
from lychee_client.experiments.records import LOG_FORMAT_VERSION

from lychee_evaluate.experiments.arm_calls import ArmCalls
from lychee_evaluate.experiments.shadow import Pair, read_pair

Metric: TypeAlias = Literal[
    "impressions", "clicks", "dwell_s", "conversions", "click_through", "click_mrr", "conversion_value"
]

ALL_METRICS: Final[tuple[Metric, ...]] = get_args(Metric)
# What every log tells; a gateway's log also tells which ranking an event belongs to, and so the rest.
METRICS: Final = ALL_METRICS[:4]
PER_RANKING: Final = frozenset({"click_through", "click_mrr"})
_METRIC_OF_EVENT: Final[dict[str, Metric]] = {"click": "clicks", "dwell": "dwell_s", "conversion": "conversions"}


@dataclass(frozen=True, slots=True)
class VariantUsers:
    """The users of one variant.

    Attributes:
        share: The planned share of this variant among all users of the experiment.
        values: The values by metric, float64, (users,), in one order for all metrics: documents shown, clicks, seconds
            of reading, and 1.0 for a user who converted at least once. From a gateway's log also the share of the
            user's rankings with a click, the mean over them of 1 / the best rank that was clicked (0 without), and
            the value of all conversions where any has one.
    """

    share: float
    values: Mapping[Metric, npt.NDArray[np.float64]]

    @property
    def count(self) -> int:
        """The number of users."""
        return len(self.values["impressions"])


@dataclass(frozen=True, slots=True)
class ExperimentUsers:
    """Everything that the comparison of two variants needs.

    Attributes:
        experiment: The name of the experiment.
        variants: The users of each variant, by its name.
        damaged: The lines that were skipped: "FILE:LINE: reason".
        notes: What makes the comparison doubtful, for people.
        unit: What was assigned: "user", or "call", each of which then counts as a user of its own.
        calls: The calls of each variant.
        pairs: The calls that a shadow's model was asked as well.
    """

    experiment: str
    variants: Mapping[str, VariantUsers]
    damaged: tuple[str, ...]
    notes: tuple[str, ...]
    unit: str = "user"
    calls: Mapping[str, ArmCalls] = field(default_factory=dict)
    pairs: tuple[Pair, ...] = ()


Totals: TypeAlias = defaultdict[Metric, float]


@dataclass(frozen=True, slots=True)
class _Ranking:
    """What one user was given at once; `indexes` are the documents', best first."""

    variant: str
    user: str
    indexes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Event:
    """What a user did with a ranking."""

    metric: Metric
    value: float
    index: int | None
    worth: float


@dataclass(slots=True)
class _Experiment:
    """What was read so far of one experiment."""

    totals: dict[str, dict[str, Totals]] = field(default_factory=dict)  # variant -> user -> sums
    served: dict[str, set[str]] = field(default_factory=dict)  # variant -> users with a decision
    shares: dict[str, set[float]] = field(default_factory=dict)
    settings: dict[str, set[str]] = field(default_factory=dict)  # variant -> thresholds
    models: dict[str, set[str]] = field(default_factory=dict)  # variant -> models, those of fallbacks left out
    chooses_models: bool = False  # whether the variants have models of their own
    units: set[str] = field(default_factory=set)
    calls: dict[str, ArmCalls] = field(default_factory=dict)
    pairs: list[Pair] = field(default_factory=list)
    rankings: dict[str, _Ranking] = field(default_factory=dict)  # by id
    feedback: dict[str, dict[str, _Event]] = field(default_factory=dict)  # ranking -> event, each once


def read_users(paths: Sequence[Path], experiment: str | None = None) -> ExperimentUsers:
    """Read log files and add up what belongs to one user.

    Damaged lines are skipped. Users without a decision, and users who got both variants, are left out with a note. What
    a user did with a ranking counts once per id of an event, whichever gateway took it and when.

    Args:
        paths: The files that `ExperimentLog` wrote, each once, and folders of files that gateways wrote.
        experiment: The experiment to read, where the files hold several.

    Raises:
        ConfigurationError: A file cannot be read or is given twice, or the experiment is not in the files, or is not
            named although there are several.
        InvalidInputError: The files hold no valid line.
    """
    paths = [file for path in paths for file in (sorted(path.glob("*.jsonl")) if path.is_dir() else [path])]
    if len({path.resolve() for path in paths}) < len(paths):
        raise ConfigurationError("a file was given twice, so its users would count twice; give every file once")
    experiments: dict[str, _Experiment] = {}
    damaged: list[str] = []
    for path in paths:
        try:
            with path.open("rb") as lines:
                damaged += _read_lines(path, lines, experiments)
        except OSError as error:
            raise ConfigurationError(f"{path} cannot be read: {error.strerror}; check the path") from error
    if not experiments:
        reasons = f"; the first damaged line is {damaged[0]}" if damaged else ""
        raise InvalidInputError(f"the files hold no valid line of an experiment's log{reasons}")
    if experiment is None and len(experiments) > 1:
        raise ConfigurationError(f"the files hold several experiments; choose one of {', '.join(sorted(experiments))}")
    name = next(iter(experiments)) if experiment is None else experiment
    if name not in experiments:
        raise ConfigurationError(f"no experiment is called {name!r}; expected one of {', '.join(sorted(experiments))}")
    return _summarize(name, experiments[name], tuple(damaged))


def _read_lines(path: Path, lines: Iterable[bytes], experiments: dict[str, _Experiment]) -> list[str]:
    """Add a file's records to `experiments`; return its damaged lines."""
    damaged = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            _add(json.loads(line, parse_constant=_refuse_constant), experiments)
        except (ValueError, RecursionError) as error:
            damaged.append(f"{path}:{number}: {error}")
    return damaged


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")


def _add(record: object, experiments: dict[str, _Experiment]) -> None:
    """Check one record, then add it; ValueError says what is wrong, and nothing was added."""
    if not isinstance(record, dict):
        raise ValueError("expected a JSON object")
    version = record.get("format_version")
    if version != LOG_FORMAT_VERSION:
        raise ValueError(f"format_version is {version!r}, expected {LOG_FORMAT_VERSION}")
    name, kind = _text(record, "experiment"), record.get("record")
    if kind == "feedback":
        ranking_id, event = _text(record, "ranking_id"), _read_event(record)
        events = experiments.setdefault(name, _Experiment()).feedback.setdefault(ranking_id, {})
        events.setdefault(str(record.get("event_id") or f"#{len(events)}"), event)
        return
    if kind == "shadow":
        pair = read_pair(record)
        experiments.setdefault(name, _Experiment()).pairs.append(pair)
        return
    variant, user = _text(record, "variant"), _text(record, "user")
    if kind == "failure":
        error = _text(record, "error")
        experiments.setdefault(name, _Experiment()).calls.setdefault(variant, ArmCalls()).failures[error] += 1
        return
    share = _number(record, "share")
    metric: Metric = "impressions"
    if kind == "decision":
        value = _number(record, metric)
    else:
        metric, value = _read_value(record, "event")
    ranking = _Ranking(variant, user, _read_indexes(record)) if "ranking_id" in record else None

    found = experiments.setdefault(name, _Experiment())
    if ranking is not None and found.rankings.setdefault(_text(record, "ranking_id"), ranking) is not ranking:
        return  # a copy of the file
    totals = found.totals.setdefault(variant, {}).setdefault(user, defaultdict(float))
    totals[metric] += value
    found.shares.setdefault(variant, set()).add(share)
    if kind == "decision":
        found.served.setdefault(variant, set()).add(user)
        found.units.add(str(record.get("unit", "user")))
        found.chooses_models |= "served" in record
        if ranking is not None:
            found.calls.setdefault(variant, ArmCalls()).add(record)
        if "fallback" in record:
            return  # it has the settings and the model of the control
        settings = [record.get(key) for key in ("policy", "settings_sha256", "instruction_sha256")]
        found.settings.setdefault(variant, set()).add(json.dumps(settings, sort_keys=True))
        found.models.setdefault(variant, set()).add(json.dumps(record.get("model")))


def _read_value(record: Mapping[str, Any], expected: str) -> tuple[Metric, float]:
    event = record.get("event")
    if record.get("record") != expected or event not in EVENT_KINDS:
        raise ValueError(f"record is {record.get('record')!r} and event {event!r}, which this version does not know")
    return _METRIC_OF_EVENT[event], _number(record, "value")


def _read_event(record: Mapping[str, Any]) -> _Event:
    metric, value = _read_value(record, "feedback")
    index = None if record.get("index") is None else int(_number(record, "index"))
    return _Event(metric, value, index, 0.0 if record.get("worth") is None else _number(record, "worth"))


def _read_indexes(record: Mapping[str, Any]) -> tuple[int, ...]:
    results = record.get("results")
    if not isinstance(results, list):
        raise ValueError(f"results is {results!r:.50}, expected a list")
    return tuple(int(_number(result, "index")) for result in results)


def _text(record: Mapping[str, Any], key: str) -> str:
    value = record.get(key)
    if not isinstance(value, str) or not value:
        raise ValueError(f"{key} is {value!r:.50}, expected a string that is not empty")
    return value


def _number(record: Mapping[str, Any], key: str) -> float:
    value = record.get(key)
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value <= MAX_EVENT_VALUE:
        raise ValueError(f"{key} is {value!r:.50}, expected a number from 0 to {MAX_EVENT_VALUE:.0e}")
    return float(value)


def _join(found: _Experiment) -> int:
    """Add to the users' sums what they did with their rankings; return how many events belong to no ranking."""
    lost = 0
    for ranking_id, events in found.feedback.items():
        ranking = found.rankings.get(ranking_id)
        if ranking is None:
            lost += len(events)
            continue
        totals = found.totals[ranking.variant][ranking.user]
        ranks = []
        for event in events.values():
            totals[event.metric] += event.value
            totals["conversion_value"] += event.worth
            if event.metric == "clicks":
                ranks.append(ranking.indexes.index(event.index) + 1 if event.index in ranking.indexes else math.inf)
        if ranks:
            totals["click_through"] += 1
            totals["click_mrr"] += 1 / min(ranks)
    return lost


def _summarize(name: str, found: _Experiment, damaged: tuple[str, ...]) -> ExperimentUsers:
    notes = []
    if lost := _join(found):
        notes.append(f"{lost} events belong to rankings that are not in the files; is a gateway's file missing?")
    served = {user for users in found.served.values() for user in users}
    both = {
        user
        for variant, users in found.totals.items()
        for user in users
        if any(user in others for other, others in found.totals.items() if other != variant)
    }
    if both:
        notes.append(
            f"{len(both)} users got several variants and were left out: salt or split was changed while the "
            "experiment ran; start a new one with a new name and salt"
        )
    unserved = {user for users in found.totals.values() for user in users} - served
    if unserved:
        notes.append(f"{len(unserved)} users have events but no decision and were left out; is a log file missing?")
    for variant, settings in sorted(found.settings.items()):
        if len(settings) > 1:
            notes.append(
                f"variant {variant!r} ran with {len(settings)} different policies or instructions; compare one change "
                "at a time"
            )
    models = [set().union(*found.models.values())] if not found.chooses_models else list(found.models.values())
    if (most := max(map(len, models), default=0)) > 1:
        where = "a variant" if found.chooses_models else "the experiment"
        notes.append(f"{where} ran with {most} models; thresholds do not carry over from one to another")
    metrics = METRICS
    if found.rankings:
        metrics = ALL_METRICS if any(each["conversion_value"] for each in _all_totals(found)) else ALL_METRICS[:-1]
    given = Counter((ranking.variant, ranking.user) for ranking in found.rankings.values())
    variants = {}
    for variant, totals in sorted(found.totals.items()):
        if len(found.shares[variant]) > 1:
            notes.append(f"the planned share of {variant!r} was changed while the experiment ran; its users are mixed")
        users = [user for user in totals if user in served and user not in both]
        values = {metric: np.array([totals[user][metric] for user in users], np.float64) for metric in metrics}
        values["conversions"] = (values["conversions"] > 0).astype(np.float64)
        rankings = np.array([max(1, given[variant, user]) for user in users], np.float64)
        for metric in metrics:
            if metric in PER_RANKING:
                values[metric] = values[metric] / rankings
        variants[variant] = VariantUsers(max(found.shares[variant]), values)
    unit = "call" if found.units == {"call"} else "user"
    return ExperimentUsers(name, variants, damaged, tuple(notes), unit, found.calls, tuple(found.pairs))


def _all_totals(found: _Experiment) -> Iterator[Totals]:
    return (totals for users in found.totals.values() for totals in users.values())

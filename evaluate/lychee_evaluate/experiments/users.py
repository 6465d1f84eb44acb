"""The users of an experiment: what its log says, added up per user."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, NoReturn, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
from lychee_client import ConfigurationError, InvalidInputError

from lychee_evaluate.experiments.experiment import EVENT_KINDS, LOG_FORMAT_VERSION, MAX_EVENT_VALUE

Metric: TypeAlias = Literal["impressions", "clicks", "dwell_s", "conversions"]

METRICS: Final[tuple[Metric, ...]] = get_args(Metric)
_METRIC_OF_EVENT: Final[dict[str, int]] = {"click": 1, "dwell": 2, "conversion": 3}  # positions in METRICS


@dataclass(frozen=True, slots=True)
class VariantUsers:
    """The users of one variant.

    Attributes:
        share: The planned share of this variant among all users of the experiment.
        values: The values by metric, float64, (users,), in one order for all metrics: documents shown, clicks, seconds
            of reading, and 1.0 for a user who converted at least once.
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
    """

    experiment: str
    variants: Mapping[str, VariantUsers]
    damaged: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(slots=True)
class _Experiment:
    """What was read so far of one experiment."""

    totals: dict[str, dict[str, list[float]]] = field(default_factory=dict)  # variant -> user -> by position in METRICS
    served: dict[str, set[str]] = field(default_factory=dict)  # variant -> users with a decision
    shares: dict[str, set[float]] = field(default_factory=dict)
    settings: dict[str, set[str]] = field(default_factory=dict)  # variant -> thresholds
    models: set[tuple[object, object]] = field(default_factory=set)  # model and instruction


def read_users(paths: Sequence[Path], experiment: str | None = None) -> ExperimentUsers:
    """Read log files and add up what belongs to one user.

    Damaged lines are skipped. Users without a decision, and users who got both variants, are left out with a note.

    Args:
        paths: The files that `ExperimentLog` wrote, each once.
        experiment: The experiment to read, where the files hold several.

    Raises:
        ConfigurationError: A file cannot be read or is given twice, or the experiment is not in the files, or is not
            named although there are several.
        InvalidInputError: The files hold no valid line.
    """
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
    name, variant, user = (_text(record, key) for key in ("experiment", "variant", "user"))
    share = _number(record, "share")
    kind = record.get("record")
    if kind == "decision":
        position, value = 0, _number(record, "impressions")
    elif kind == "event" and record.get("event") in EVENT_KINDS:
        position, value = _METRIC_OF_EVENT[record["event"]], _number(record, "value")
    else:
        raise ValueError(f"record is {kind!r} and event {record.get('event')!r}, which this version does not know")

    found = experiments.setdefault(name, _Experiment())
    found.totals.setdefault(variant, {}).setdefault(user, [0.0] * len(METRICS))[position] += value
    found.shares.setdefault(variant, set()).add(share)
    if kind == "decision":
        found.served.setdefault(variant, set()).add(user)
        found.settings.setdefault(variant, set()).add(json.dumps(record.get("policy"), sort_keys=True))
        found.models.add((json.dumps(record.get("model")), json.dumps(record.get("instruction_sha256"))))


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


def _summarize(name: str, found: _Experiment, damaged: tuple[str, ...]) -> ExperimentUsers:
    notes = []
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
                f"variant {variant!r} ran with {len(settings)} different policies; compare one change at a time"
            )
    if len(found.models) > 1:
        notes.append(
            f"the experiment ran with {len(found.models)} combinations of model and instruction; thresholds do not "
            "carry over from one to another"
        )
    variants = {}
    for variant, totals in sorted(found.totals.items()):
        if len(found.shares[variant]) > 1:
            notes.append(f"the planned share of {variant!r} was changed while the experiment ran; its users are mixed")
        rows = [values for user, values in totals.items() if user in served and user not in both]
        table = np.array(rows, dtype=np.float64).reshape(-1, len(METRICS))  # (users, metrics)
        table[:, 3] = table[:, 3] > 0
        values = {metric: table[:, position] for position, metric in enumerate(METRICS)}
        variants[variant] = VariantUsers(max(found.shares[variant]), values)
    return ExperimentUsers(name, variants, damaged, tuple(notes))

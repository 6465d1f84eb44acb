"""How long a replica computes, from the file that `lychee tune` wrote."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from lychee_server.errors import SettingsError

__all__ = ["MEASURED", "ServiceTimes", "read_service_times"]

MEASURED: Final = Path(__file__).with_name("lychee-mini.json")
P99_SIGMAS: Final = 2.326  # the 99th percentile of a normal distribution lies so many deviations above its median


@dataclass(frozen=True, slots=True)
class ServiceTimes:
    """What one replica's encoder does.

    Attributes:
        name: The model and its inputs, in words.
        rows: The measured batch sizes, ascending.
        seconds: How long a batch of each size takes.
        sigma: The deviation of the time's logarithm, from call to call.
        instances: How many batches are computed at the same time.
        where: The machine and the day of the measurement.
    """

    name: str
    rows: tuple[int, ...]
    seconds: tuple[float, ...]
    sigma: float = 0.0
    instances: int = 1
    where: str = ""

    @property
    def max_rows(self) -> int:
        """Most rows that are computed at once."""
        return self.rows[-1]

    @property
    def rows_per_s(self) -> float:
        """What a replica computes at most, in rows per second."""
        return self.instances * max(rows / seconds for rows, seconds in zip(self.rows, self.seconds, strict=True))

    def by_rows(self) -> list[float]:
        """Return the seconds of 0, 1, 2 rows and so on to `max_rows`, straight between the measured sizes."""
        return [0.0, *np.interp(range(1, self.max_rows + 1), self.rows, self.seconds).tolist()]

    def scatter(self, count: int, rng: np.random.Generator) -> list[float]:
        """Draw factors for the times of so many batches; their mean is 1."""
        return [float(factor) for factor in rng.lognormal(-(self.sigma**2) / 2, self.sigma, count)]


def read_service_times(path: Path, inputs: str | None = None) -> ServiceTimes:
    """Read the times of one curve of a file that `lychee tune` wrote.

    A batch of n rows takes n / throughput: two requests were in flight, so the model never waited.

    Args:
        path: The file, `tuned.json`.
        inputs: The name of the curve, such as "64 tokens"; None takes the first one.

    Raises:
        SettingsError: The file cannot be read, or has no such curve.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        curves = [(model, curve) for model in content["models"] for curve in model["curves"]]
        machine = content["machine"]
        where = f"{machine['cpu']}, {machine['cores']} cores, {machine['date']}"
        found = [pair for pair in curves if inputs in (None, pair[1]["inputs"])]
        if not found:
            names = ", ".join(repr(curve["inputs"]) for _, curve in curves)
            raise SettingsError(f"{path} has no inputs {inputs!r}; expected one of {names}")
        return _read_curve(*found[0], str(content["model_id"]), where)
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}; `lychee tune` writes such a file") from error
    except (ValueError, KeyError, TypeError, ZeroDivisionError) as error:
        raise SettingsError(f"{path} is not a file that `lychee tune` wrote: {error!r}") from error


def _read_curve(model: dict[str, Any], curve: dict[str, Any], model_id: str, where: str) -> ServiceTimes:
    points = sorted(curve["batches"], key=lambda point: int(point["rows"]))
    chosen = next(point for point in points if point["rows"] == curve["chosen_batch"])
    return ServiceTimes(
        name=f"{model_id}, {model['model']}, {curve['inputs']}",
        rows=tuple(int(point["rows"]) for point in points),
        seconds=tuple(float(point["rows"]) / float(point["rows_per_s"]) for point in points),
        sigma=math.log(float(chosen["p99_ms"]) / float(chosen["p50_ms"])) / P99_SIGMAS,
        instances=int(model["settings"]["instances"]),
        where=where,
    )

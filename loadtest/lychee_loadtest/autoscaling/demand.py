"""The calls of a day: a curve from night to noon, sudden spikes, and a flash crowd in the evening."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["Calls", "Day", "draw_calls", "level_by_second"]

HOUR_S: Final = 3600
DAY_S: Final = 24 * HOUR_S
QUIETEST_HOUR: Final = 4
LUNCH_HOUR: Final = 12.5
LUNCH_WIDTH_H: Final = 0.75
SPIKE_RAMP_S: Final = 20
SPIKE_S: Final = (120, 480)
FLASH_HOUR: Final = 20
FLASH_RAMP_S: Final = 10
FLASH_DECAY_S: Final = 600
SUDDEN: Final = 1.1  # times the curve; what is less is no spike


@dataclass(frozen=True, slots=True)
class Day:
    """How the load changes.

    Attributes:
        peak: The load of the afternoon without spikes, as the number of replicas that it would keep wholly busy.
        night: The share of it that is left in the quietest hour.
        lunch: By how much of it noon is above the curve.
        spikes: How many sudden spikes there are.
        spike_factors: How many times the load of the moment a spike is, at least and at most.
        flash: How many times the load of the moment the flash crowd is; it fades within minutes.
        small, large: Documents of a usual call, 1 to `small`, and of a large one.
        large_share: The share of calls that are large.
        duration_s: How much of the day is played, from its beginning.
    """

    peak: float = 2.0
    night: float = 0.25
    lunch: float = 0.5
    spikes: int = 3
    spike_factors: tuple[float, float] = (3.0, 5.0)
    flash: float = 5.0
    small: int = 20
    large: int = 100
    large_share: float = 0.05
    duration_s: int = DAY_S

    def mean_requests(self, max_rows: int) -> float:
        """Requests of a call, on average, where one holds at most `max_rows` documents."""
        usual = sum(math.ceil(size / max_rows) for size in range(1, self.small + 1)) / self.small
        return (1 - self.large_share) * usual + self.large_share * math.ceil(self.large / max_rows)

    @property
    def mean_documents(self) -> float:
        """Documents of a call, on average."""
        return (1 - self.large_share) * (1 + self.small) / 2 + self.large_share * self.large


@dataclass(frozen=True, slots=True)
class Calls:
    """Every call of the day.

    Attributes:
        times_s: When it comes, in seconds, ascending.
        documents: How many it has.
        sudden: Whether it comes in a spike or in the flash crowd.
    """

    times_s: npt.NDArray[np.float64]
    documents: npt.NDArray[np.int64]
    sudden: npt.NDArray[np.bool_]


def level_by_second(day: Day, rng: np.random.Generator) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the day's curve by second, in replicas that it would keep wholly busy, and by what spikes multiply it."""
    seconds = np.arange(day.duration_s, dtype=np.float64)
    hours = seconds / HOUR_S
    wave = (1 - np.cos(2 * math.pi * (hours - QUIETEST_HOUR) / 24)) / 2
    level = day.night + (1 - day.night) * wave
    level += day.lunch * np.exp(-(((hours - LUNCH_HOUR) / LUNCH_WIDTH_H) ** 2) / 2)
    sudden = np.ones_like(level)
    for _ in range(day.spikes):
        begins, lasts = rng.uniform(0, day.duration_s), rng.uniform(*SPIKE_S)
        factor = rng.uniform(*day.spike_factors)
        edges = [begins, begins + SPIKE_RAMP_S, begins + lasts, begins + lasts + SPIKE_RAMP_S]
        sudden *= np.interp(seconds, edges, [1, factor, factor, 1])
    since = seconds - FLASH_HOUR * HOUR_S
    crowd = np.clip(since / FLASH_RAMP_S, 0, 1) * np.exp(-np.clip(since - FLASH_RAMP_S, 0, None) / FLASH_DECAY_S)
    return day.peak * level, sudden * (1 + (day.flash - 1) * crowd)


def draw_calls(day: Day, rows_per_s: float, rng: np.random.Generator) -> Calls:
    """Draw the calls, a Poisson process whose rate is constant within each second.

    Args:
        day: How the load changes.
        rows_per_s: What one replica computes at most.
        rng: The source of randomness.
    """
    level, factors = level_by_second(day, rng)
    counts = rng.poisson(level * factors * rows_per_s / day.mean_documents)
    times = np.repeat(np.arange(day.duration_s, dtype=np.float64), counts)
    times += rng.uniform(size=len(times))
    times.sort()
    documents = rng.integers(1, day.small + 1, len(times))
    documents[rng.uniform(size=len(times)) < day.large_share] = day.large
    return Calls(times, documents, factors[times.astype(np.int64)] > SUDDEN)

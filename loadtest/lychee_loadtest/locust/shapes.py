"""How the load changes over a run: step, spike, soak, or not at all.

A shape is a plan: the share of the full load at each moment. In a closed model it is a share of `--users`, in an open
one of `--arrival-rate`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, get_args

__all__ = ["SHAPES", "ShapeName", "Stage", "level_at", "plan_shape"]

ShapeName: TypeAlias = Literal["constant", "step", "spike", "soak"]
SHAPES: Final[tuple[ShapeName, ...]] = get_args(ShapeName)

_SPIKE_LEVEL: Final = 0.2
_SPIKE_START, _SPIKE_END = 0.4, 0.6
_SOAK_RAMP: Final = (0.25, 0.5, 0.75)
_SOAK_RAMP_SHARE: Final = 0.02


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of the run with a constant load.

    Attributes:
        end_s: When the stage ends, in seconds since the start of the run; the next one begins there.
        level: The share of the full load, in (0, 1].
    """

    end_s: float
    level: float


def plan_shape(name: ShapeName, run_time_s: float, steps: int) -> tuple[Stage, ...]:
    """Return the stages of a run, in order.

    Args:
        name: "constant": full load throughout. "step": so many equal steps up to the full load, equally long. "spike":
            a fifth of the load, the full load for the fifth of the time in the middle, and a fifth again: how does it
            recover? "soak": a short ramp, then the full load: does anything grow?
        run_time_s: How long the run lasts.
        steps: How many steps "step" has; at least 1.

    Raises:
        ValueError: There are no steps or there is no time.
    """
    if run_time_s <= 0 or steps < 1:
        raise ValueError(f"the run has {run_time_s:g} s and {steps} steps; expected more than 0 s and at least 1 step")
    if name == "step":
        return tuple(Stage(run_time_s * step / steps, step / steps) for step in range(1, steps + 1))
    if name == "spike":
        ends = ((_SPIKE_START, _SPIKE_LEVEL), (_SPIKE_END, 1.0), (1.0, _SPIKE_LEVEL))
        return tuple(Stage(run_time_s * end, level) for end, level in ends)
    if name == "soak":
        ramp = [
            Stage(run_time_s * _SOAK_RAMP_SHARE * number, level) for number, level in enumerate(_SOAK_RAMP, start=1)
        ]
        return (*ramp, Stage(run_time_s, 1.0))
    return (Stage(run_time_s, 1.0),)


def level_at(stages: Sequence[Stage], time_s: float) -> float:
    """Return the share of the full load at a time since the start; 0 after the end."""
    return next((stage.level for stage in stages if time_s < stage.end_s), 0.0)

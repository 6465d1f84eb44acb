"""Which execution each model gets: the fastest that leaves the scores within the error budget."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

from lychee_client.manifest import EXACT_TOLERANCE

from lychee_server.execution.budget import EXACT
from lychee_server.execution.measurement import Measurement
from lychee_server.execution.onnx_sessions import EXECUTIONS, PLAIN_CPU

WORTH_IT = 1.05
"""How many times as fast as the plain CPU provider another one must be: below, it is noise."""


@dataclass(frozen=True)
class Choice:
    """What executes a model.

    Attributes:
        execution: A name of EXECUTIONS.
        reason: Why, as one phrase.
        required: Whether nothing may take its place, since it was asked for.
    """

    execution: str
    reason: str
    required: bool = False


def choose(measured: Mapping[str, Mapping[str, Measurement]], error_budget: float) -> dict[str, Choice]:
    """Choose for all models at once: a score passes through several, and their errors add up.

    Args:
        measured: What was measured, by model and execution; the plain CPU provider is among them.
        error_budget: How far a score may be from what it is on the plain CPU provider. How far that is from the
            reference, because of weights of few bits, is the export's affair.
    """
    usable = {
        model: [name for name, found in own.items() if name == PLAIN_CPU or not _problem(found, error_budget)]
        for model, own in measured.items()
    }
    combinations = [dict(zip(usable, names, strict=True)) for names in itertools.product(*usable.values())]
    within = [each for each in combinations if _added_error(measured, each) <= max(error_budget, EXACT_TOLERANCE)]
    best = max(within, key=lambda each: sum(measured[model][name].speed or 0.0 for model, name in each.items()))
    return {model: Choice(name, _explain(name, measured[model], error_budget)) for model, name in best.items()}


def _added_error(measured: Mapping[str, Mapping[str, Measurement]], combination: Mapping[str, str]) -> float:
    """Return how far a score may be off the plain CPU provider's."""
    return sum(measured[model][name].error for model, name in combination.items() if name != PLAIN_CPU)


def _problem(found: Measurement, error_budget: float) -> str:
    """Say why an execution cannot be chosen; empty if it can."""
    if found.problem is not None:
        return found.problem
    allowed = max(error_budget, EXACT_TOLERANCE)
    if found.error > allowed:
        return f"moves a score by {found.error:.4f}, {allowed:g} is allowed"
    if found.move > EXACT_TOLERANCE:
        return f"moves a score by {found.move:.4f} with its batch or padding, {EXACT_TOLERANCE:g} is allowed"
    if found.speed is not None and found.speed < WORTH_IT:
        return f"is {found.speed:.2f} times as fast"
    return ""


def _explain(name: str, measured: Mapping[str, Measurement], error_budget: float) -> str:
    if name != PLAIN_CPU:
        found = measured[name]
        scores = f"scores off by {found.error:.4f}, {error_budget:g} is allowed"
        if EXECUTIONS[name].precision == "fp32":
            scores = "the same scores"
        return f"{found.speed:.1f} times as fast as {PLAIN_CPU}, {scores}"
    over = "would exceed the error budget together with another model's"
    others = [
        f"{other} {_problem(found, error_budget) or over}" for other, found in measured.items() if other != PLAIN_CPU
    ]
    if error_budget == EXACT:
        others.append("only float32 is exact")
    return "; ".join(others) or "nothing else executes it on this machine"

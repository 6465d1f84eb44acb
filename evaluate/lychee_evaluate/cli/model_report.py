"""What `lychee ab-report` says of the models of an experiment: a canary's arms, and a shadow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lychee_evaluate.experiments.arm_calls import ArmReport, report_arms
from lychee_evaluate.experiments.estimates import Estimate
from lychee_evaluate.experiments.shadow import TOP_K, ShadowReport, compare_models
from lychee_evaluate.experiments.users import ExperimentUsers

DECISIONS = ("accept", "review", "reject")


@dataclass(frozen=True, slots=True)
class ModelReport:
    """What the records say of models.

    Attributes:
        arms: The calls of each arm.
        shadows: Each pair of models that were asked the same calls.
    """

    arms: tuple[ArmReport, ...]
    shadows: tuple[ShadowReport, ...]


def report_models(users: ExperimentUsers, alpha: float) -> ModelReport:
    """Return what the records say of models.

    Args:
        users: What `read_users` returns.
        alpha: 1 minus the confidence of the intervals.
    """
    return ModelReport(report_arms(users.calls, alpha), compare_models(users.pairs, alpha))


def print_models(report: ModelReport) -> None:
    """Print it for people; nothing where there is nothing."""
    console = Console()
    if any(arm.models or arm.failures for arm in report.arms):
        _print_arms(console, report.arms)
    for shadow in report.shadows:
        _print_shadow(console, shadow)


def verdict(report: ShadowReport) -> str:
    """Say in one sentence what a shadow's pairs show."""
    if report.tau is None or report.changed is None:
        return "no call of both models has a ranking that can be compared"
    return (
        f"the two models rank alike to a tau of {report.tau.value:.2f} on average, agree on the best document in "
        f"{_percent(report.top_1)} of the calls, and decide {_percent(report.changed)} of the documents differently"
    )


def _print_arms(console: Console, arms: tuple[ArmReport, ...]) -> None:
    table = Table(box=None, pad_edge=False)
    for heading in ("arm", "calls", *DECISIONS, "p50", "p99"):
        table.add_column(heading, justify="left" if heading == "arm" else "right")
    for arm in arms:
        times = ["" if arm.latency_ms is None else f"{each:.0f} ms" for each in arm.latency_ms or (0.0, 0.0)]
        shares = [f"{arm.decisions.get(decision, 0.0):.1%}" for decision in DECISIONS]
        table.add_row(Text(arm.arm), f"{arm.calls:,}", *shares, *times)
    console.print(table)
    for arm in arms:
        lost = f"fallbacks {_counts(arm.fallbacks)}; failures {_counts(arm.failures)}"
        console.print(Text(f"  {arm.arm}: calls with accept {_percent(arm.with_accept)}; {lost}"))


def _print_shadow(console: Console, report: ShadowReport) -> None:
    console.print(Text(f"shadow {report.shadow} beside {report.primary}: {report.calls:,} calls"))
    console.print(Text(verdict(report)))
    lines = {
        "failures": _counts(report.failures),
        "Kendall's tau-b": _number(report.tau) + _spread(report.tau_quantiles),
        "same best document": _percent(report.top_1),
        f"shared among the {TOP_K} best": _percent(report.top_k),
        "largest moves, in ranks": ", ".join(map(str, report.rank_moves)),
        "changed decisions": f"{_percent(report.changed)} of documents, in {_percent(report.changed_calls)} of calls",
        "difference of scores": _spread(report.score_difference).strip(),
        "p50, p99": "; ".join(f"{name} {low:.0f} ms, {high:.0f} ms" for name, (low, high) in report.latency_ms.items()),
        "shadow's time / other's": _number(report.latency_ratio),
    }
    for name, told in lines.items():
        console.print(Text(f"  {name}: {told or 'none'}"))
    table = Table(box=None, pad_edge=False)
    for heading in ("  documents", *DECISIONS):
        table.add_column(heading, justify="left" if "documents" in heading else "right")
    for before in DECISIONS:
        row = report.decisions.get(before, {})
        table.add_row(f"  {before}, then", *(f"{row.get(after, 0):,}" for after in DECISIONS))
    console.print(table)
    for note in report.notes:
        console.print(Text(f"note: {note}", style="yellow"))


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items())) or "0"


def _number(estimate: Estimate | None) -> str:
    if estimate is None:
        return "none"
    return f"{estimate.value:.3f}" + _interval(estimate, "{:.3f}")


def _percent(estimate: Estimate | None) -> str:
    return "none" if estimate is None else f"{estimate.value:.1%}" + _interval(estimate, "{:.1%}")


def _interval(estimate: Estimate, form: str) -> str:
    if estimate.low is None or estimate.high is None:
        return ""
    return f" ({form.format(estimate.low)} to {form.format(estimate.high)})"


def _spread(quantiles: tuple[float, ...] | None) -> str:
    return "" if quantiles is None else " p10/p50/p90 " + " / ".join(f"{each:.3f}" for each in quantiles)

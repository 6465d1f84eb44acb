"""A shadow's pairs: how two models ranked and decided the same calls, and how long they took."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
from lychee_client.experiments.agreement import kendall_tau_b

from lychee_evaluate.experiments.estimates import LATENCY_QUANTILES, Estimate, quantiles_of, ratio_of, share_of

Array: TypeAlias = npt.NDArray[np.float64]

TOP_K: Final = 5
MIN_CALLS: Final = 30
QUANTILES: Final = (10, 50, 90)
RANK_MOVES: Final = 5  # how many of the largest are told
_Scores: TypeAlias = dict[int, tuple[float, str]]  # index -> score, decision


@dataclass(frozen=True, slots=True)
class Pair:
    """One call that both models were asked; the results are by the document's index, best first.

    Attributes:
        primary: The results of the model that answered.
        shadow: Those of the other one; None where it failed.
        error: What it failed with.
        latency_ms: Of both models.
        models: The names of both.
        cut: Whether a ranking is longer than what was written down.
    """

    primary: _Scores
    shadow: _Scores | None
    error: str | None
    latency_ms: tuple[float, float]
    models: tuple[str, str]
    cut: bool


@dataclass(frozen=True, slots=True)
class ShadowReport:
    """What a shadow's pairs say; calls are what varies independently, so all intervals are over calls.

    Attributes:
        primary: The name of the model that answered, with its version.
        shadow: That of the shadow.
        calls: How many calls were sent to the shadow's model.
        failures: How many of them failed, by error.
        tau: The mean of Kendall's tau-b over the calls that have one.
        tau_quantiles: Its 10th, 50th and 90th percentile.
        without_tau: Calls without one: fewer than two documents, or all the same score.
        top_1: The share of calls with the same best document.
        top_k: The mean share of the TOP_K best documents that both models have among theirs.
        rank_moves: The largest differences of a document's rank, one for each call, largest first.
        decisions: How many documents had each decision of the first and each of the second.
        changed: The share of documents with another decision.
        changed_calls: The share of calls with at least one such document.
        score_difference: Percentiles of the shadow's score minus the other's: 10th, 50th, 90th.
        latency_ms: The 50th and 99th percentile of both models.
        latency_ratio: The geometric mean of the shadow's time divided by the other's, call by call.
        notes: What limits all this, in words.
    """

    primary: str
    shadow: str
    calls: int
    failures: Mapping[str, int]
    tau: Estimate | None
    tau_quantiles: tuple[float, ...] | None
    without_tau: int
    top_1: Estimate | None
    top_k: Estimate | None
    rank_moves: tuple[int, ...]
    decisions: Mapping[str, Mapping[str, int]]
    changed: Estimate | None
    changed_calls: Estimate | None
    score_difference: tuple[float, ...] | None
    latency_ms: Mapping[str, tuple[float, ...]]
    latency_ratio: Estimate | None
    notes: tuple[str, ...]


def read_pair(record: Mapping[str, Any]) -> Pair:
    """Return the pair of a record.

    Raises:
        ValueError: The record is damaged.
    """
    sides = [record.get(key) for key in ("primary", "shadow")]
    try:
        primary, shadow = (_read_results(side) for side in sides)
        times = [float(side["latency_ms"]) for side in sides if side is not None]
        names = [f"{side['name']} (version {side.get('model_version')})" for side in sides if side is not None]
        cut = any(side.get("documents", 0) > len(side.get("results", ())) for side in sides if side is not None)
        error = sides[1]["error"] if sides[1] is not None else None
    except (KeyError, TypeError, AttributeError) as damage:
        raise ValueError(f"the pair of a shadow lacks {damage}") from damage
    if len(times) < 2 or primary is None or not all(math.isfinite(each) and each >= 0 for each in times):
        raise ValueError("the pair of a shadow lacks a ranking or a time")
    return Pair(primary, shadow, error, (times[0], times[1]), (names[0], names[1]), cut)


def _read_results(side: Any) -> _Scores | None:
    if "results" not in side:
        return None
    scores = {int(each["index"]): (float(each["relevance_score"]), str(each["decision"])) for each in side["results"]}
    if not all(math.isfinite(score) for score, _ in scores.values()):
        raise ValueError("the pair of a shadow has a score that is no number")
    return scores


def compare_models(pairs: Sequence[Pair], alpha: float) -> tuple[ShadowReport, ...]:
    """Return a report for each two models, versions apart.

    Args:
        pairs: The pairs of one experiment.
        alpha: 1 minus the confidence of the intervals.
    """
    models = dict.fromkeys(pair.models[0] for pair in pairs)
    return tuple(
        _compare(primary, shadow, [pair for pair in pairs if _is_of(pair, primary, shadow)], alpha)
        for primary in models
        for shadow in _shadows(pair for pair in pairs if pair.models[0] == primary)
    )


def _shadows(pairs: Iterable[Pair]) -> list[str]:
    """Return the names of shadows; one that failed tells no version, and counts with each of its model."""
    names = list(dict.fromkeys(pair.models[1] for pair in pairs))
    known = [name for name in names if not name.endswith("(version None)")]
    return known or names


def _is_of(pair: Pair, primary: str, shadow: str) -> bool:
    is_unknown = pair.shadow is None and pair.models[1].rsplit(" (", 1)[0] == shadow.rsplit(" (", 1)[0]
    return pair.models[0] == primary and (pair.models[1] == shadow or is_unknown)


def _compare(primary: str, shadow: str, pairs: Sequence[Pair], alpha: float) -> ShadowReport:
    answered = [(pair, pair.shadow) for pair in pairs if pair.shadow is not None]
    taus, tops, shared, moves, changes, sizes, differences = [], [], [], [], [], [], []
    decisions: dict[str, Counter[str]] = {}
    without_tau = 0
    for pair, other in answered:
        both = sorted(pair.primary.keys() & other.keys())
        first, second = ([side[index][0] for index in both] for side in (pair.primary, other))
        if not both:
            without_tau += 1
            continue
        tau = kendall_tau_b(first, second)
        if tau is None:
            without_tau += 1
        else:
            taus.append(tau)
        orders = [sorted(both, key=lambda index: -side[index][0]) for side in (pair.primary, other)]
        if len(both) > 1:
            k = min(TOP_K, len(both))
            tops.append(float(orders[0][0] == orders[1][0]))
            shared.append(len(set(orders[0][:k]) & set(orders[1][:k])) / k)
            ranks = [{index: rank for rank, index in enumerate(order)} for order in orders]
            moves.append(max(abs(ranks[0][index] - ranks[1][index]) for index in both))
        pairs_of_decisions = [(pair.primary[index][1], other[index][1]) for index in both]
        for before, after in pairs_of_decisions:
            decisions.setdefault(before, Counter())[after] += 1
        changes.append(float(sum(before != after for before, after in pairs_of_decisions)))
        sizes.append(float(len(both)))
        differences += [after - before for before, after in zip(first, second, strict=True)]
    times = np.array([pair.latency_ms for pair, _ in answered], np.float64).reshape(-1, 2)
    return ShadowReport(
        primary=primary,
        shadow=shadow,
        calls=len(pairs),
        failures=dict(Counter(str(pair.error) for pair in pairs if pair.shadow is None)),
        tau=ratio_of(taus, None, alpha),
        tau_quantiles=quantiles_of(taus, QUANTILES),
        without_tau=without_tau,
        top_1=share_of(sum(tops), len(tops), alpha),
        top_k=ratio_of(shared, None, alpha),
        rank_moves=tuple(sorted(moves, reverse=True)[:RANK_MOVES]),
        decisions={before: dict(counts) for before, counts in decisions.items()},
        changed=ratio_of(changes, sizes, alpha),
        changed_calls=share_of(sum(change > 0 for change in changes), len(changes), alpha),
        score_difference=quantiles_of(differences, QUANTILES),
        latency_ms={
            name: found
            for name, column in zip(("primary", "shadow"), times.T, strict=True)
            if (found := quantiles_of(column, LATENCY_QUANTILES)) is not None
        },
        latency_ratio=_latency_ratio(times, alpha),
        notes=tuple(_notes(pairs, len(answered), without_tau)),
    )


def _notes(pairs: Sequence[Pair], answered: int, without_tau: int) -> list[str]:
    notes = []
    if answered < MIN_CALLS:
        notes.append(f"{answered} calls are few: expected at least {MIN_CALLS} before any of this is relied on")
    if without_tau:
        notes.append(f"{without_tau} calls have no tau: fewer than two documents, or all with the same score")
    if cut := sum(pair.cut for pair in pairs):
        notes.append(f"{cut} calls had more documents than are written down; of them only what both models rank high")
    notes.append("a tau says how alike the rankings are, not which one is better: only labels and users say that")
    notes.append("the shadow is asked in the bulk lane, after the other model, so its times are rather too long")
    return notes


def _latency_ratio(times: Array, alpha: float) -> Estimate | None:
    positive = times[(times > 0).all(axis=1)]
    return ratio_of(list(np.log(positive[:, 1] / positive[:, 0])), None, alpha, math.exp)

"""Compare two variants of an experiment: statistics on users.

The unit is the user. The documents that one user sees and clicks depend on each other, so counting them as if they
were independent would make chance look like an effect.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from lychee_client import ConfigurationError, InvalidInputError

from lychee_evaluate.experiments.users import ALL_METRICS, ExperimentUsers, Metric, VariantUsers

Array: TypeAlias = npt.NDArray[np.float64]
Finding: TypeAlias = Literal["higher", "lower", "none", "undecided"]

DEFAULT_ALPHA: Final = 0.05
DEFAULT_EFFECT: Final = 0.05
POWER: Final = 0.8
MIN_USERS: Final = 30
# A split this far from the plan happens by chance once in a thousand experiments.
SAMPLE_RATIO_ALPHA: Final = 0.001
# Largest skewness of the difference at which the t distribution keeps its error rate: measured, see test_ab_test.py.
MAX_SKEWNESS: Final = 0.1


@dataclass(frozen=True, slots=True)
class MetricComparison:
    """One metric of the treatment against the control.

    Attributes:
        metric: The name of the metric.
        control: The mean over the control's users.
        treatment: The mean over the treatment's users.
        difference: The mean of the treatment minus that of the control.
        low: The lower end of the interval of the difference, or None where nothing was tested.
        high: The upper end of the interval, or None where nothing was tested.
        confidence: The confidence level of the interval, or None where nothing was tested: at least 1 - alpha, and such
            that 0 lies outside exactly if the test finds a difference.
        p_value: The p value of Welch's t test, before the correction for the number of metrics, or None where nothing
            was tested.
        finding: "higher" or "lower" where the treatment differs, "none", or "undecided" where the data cannot tell.
        obstacle: Why the finding is "undecided", or None.
        users_needed: How many users of both variants together find the effect asked for with the power POWER, or None
            where no number can be given.
    """

    metric: Metric
    control: float
    treatment: float
    difference: float
    low: float | None
    high: float | None
    confidence: float | None
    p_value: float | None
    finding: Finding
    obstacle: str | None
    users_needed: int | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """The outcome of an experiment.

    Attributes:
        experiment: The name of the experiment.
        control: The name of the variant that is compared with.
        treatment: The name of the other variant.
        control_users: How many users the control has.
        treatment_users: How many the treatment has.
        sample_ratio_p_value: The p value of the chi-squared test of the numbers of users against the planned split.
        sample_ratio_ok: False if the users cannot have been assigned as planned: then all findings are "undecided".
        alpha: The chance of a finding in any metric where the variants do not differ.
        effect: The relative difference that `users_needed` is about.
        metrics: The comparisons, in the order of ALL_METRICS.
    """

    experiment: str
    control: str
    treatment: str
    control_users: int
    treatment_users: int
    sample_ratio_p_value: float
    sample_ratio_ok: bool
    alpha: float
    effect: float
    metrics: tuple[MetricComparison, ...]


@dataclass(frozen=True, slots=True)
class WelchTest:
    """Welch's t test of the difference of two means; arrays where the samples were stacked.

    Attributes:
        difference: The mean of the treatment minus that of the control.
        standard_error: The standard error of the difference.
        degrees_of_freedom: The degrees of freedom of the t distribution; 1 where neither sample varies.
        p_value: The two-sided p value.
    """

    difference: Array
    standard_error: Array
    degrees_of_freedom: Array
    p_value: Array

    def interval(self, confidence: float) -> tuple[Array, Array]:
        """Return both ends of the confidence interval of the difference."""
        from scipy import stats

        margin = stats.t.ppf((1 + confidence) / 2, self.degrees_of_freedom) * self.standard_error
        return self.difference - margin, self.difference + margin


def welch_test(control: Array, treatment: Array) -> WelchTest:
    """Compare means without the assumption of equal variances.

    Args:
        control: The values of the control's users: float64, (..., users), at least 2 users.
        treatment: The values of the treatment's users: float64, (..., other users), at least 2.

    Returns:
        Arrays of shape (...).
    """
    from scipy import stats

    control_error = control.var(axis=-1, ddof=1) / control.shape[-1]
    treatment_error = treatment.var(axis=-1, ddof=1) / treatment.shape[-1]
    difference = treatment.mean(axis=-1) - control.mean(axis=-1)
    squared = control_error + treatment_error
    parts = control_error**2 / (control.shape[-1] - 1) + treatment_error**2 / (treatment.shape[-1] - 1)
    constant = parts == 0
    degrees = np.where(constant, 1.0, squared**2 / np.where(constant, 1.0, parts))
    statistic = np.abs(difference) / np.sqrt(np.where(constant, 1.0, squared))
    p_value = np.where(constant, np.where(difference == 0, 1.0, 0.0), 2 * stats.t.sf(statistic, degrees))
    return WelchTest(difference, np.sqrt(squared), degrees, p_value)


def holm_levels(p_values: Array, alpha: float) -> Array:
    """Return the level at which to test each hypothesis, so that any false finding has a chance of at most alpha.

    Holm's procedure: the smallest p value is tested at alpha / n, the next at alpha / (n - 1), up to the first that
    fails; the rest are tested at that one's level, and fail too.

    Args:
        p_values: The p values, float64, (hypotheses,).
        alpha: The chance of any false finding, in (0, 1).

    Returns:
        float64, (hypotheses,): a hypothesis is rejected exactly if its p value is at most its level.
    """
    levels = np.empty(len(p_values))
    level, rejecting = 0.0, True
    for step, position in enumerate(np.argsort(p_values)):
        if rejecting:
            level = alpha / (len(p_values) - step)
            rejecting = bool(p_values[position] <= level)
        levels[position] = level
    return levels


def skewness_of_difference(control: Array, treatment: Array) -> float:
    """Return how lopsided the difference of the means is if both samples come from one distribution.

    0 for groups of equal size, which cancel out. With unequal ones and rare events a t test sees what is not there.
    """
    from scipy import stats

    pooled = np.concatenate([control, treatment])
    if len(control) == len(treatment) or np.ptp(pooled) == 0:
        return 0.0
    inverse = 1 / len(control), 1 / len(treatment)
    return float(abs(stats.skew(pooled)) * abs(inverse[0] ** 2 - inverse[1] ** 2) / sum(inverse) ** 1.5)


def users_needed(control: Array, treatment: Array, effect: float, alpha: float) -> int | None:
    """Return how many users both variants need together to find an effect with the power POWER.

    Args:
        control: The values of the control's users: float64, (users,).
        treatment: The values of the treatment's users: float64, (users,). The ratio of the two numbers of users is
            taken as it is.
        effect: The effect relative to the control's mean, for example 0.05.
        alpha: The level of the test.

    Returns:
        The number of users; None where a sample has a single user, or the control's mean is 0 and no relative effect
        exists.
    """
    from scipy import stats

    difference = abs(effect * float(control.mean()))
    if difference == 0 or min(len(control), len(treatment)) < 2:
        return None
    total = len(control) + len(treatment)
    variance = total * (control.var(ddof=1) / len(control) + treatment.var(ddof=1) / len(treatment))
    quantiles = stats.norm.ppf(1 - alpha / 2) + stats.norm.ppf(POWER)
    for_power = variance * (quantiles / difference) ** 2
    for_skewness = total * (skewness_of_difference(control, treatment) / MAX_SKEWNESS) ** 2
    return max(2 * MIN_USERS, math.ceil(max(float(for_power), for_skewness)))


def compare(
    users: ExperimentUsers,
    *,
    control: str = "control",
    treatment: str | None = None,
    alpha: float = DEFAULT_ALPHA,
    effect: float = DEFAULT_EFFECT,
) -> Comparison:
    """Compare two variants in every metric.

    Args:
        users: What `read_users` returns.
        control: The name of the variant to compare with.
        treatment: The name of the variant to compare. None takes the only other one.
        alpha: The chance of a finding in any metric where the variants do not differ, in (0, 0.5).
        effect: The relative difference for which to say how many users are needed, above 0.

    Raises:
        ConfigurationError: An option cannot be used.
        InvalidInputError: There is no other variant, or a variant has no users.
    """
    if not 0 < alpha < 0.5:
        raise ConfigurationError(f"alpha is {alpha}; expected above 0 and below 0.5")
    if not 0 < effect < math.inf:
        raise ConfigurationError(f"effect is {effect}; expected a number above 0, for example 0.05 for 5 %")
    counts = {name: variant.count for name, variant in users.variants.items()}
    if len(counts) < 2 or not all(counts.values()):
        raise InvalidInputError(
            f"experiment {users.experiment!r} has the users {counts}; expected two variants with users in both"
        )
    if control not in counts:
        raise ConfigurationError(f"no variant is called {control!r}; expected --control {' or '.join(counts)}")
    others = [name for name in counts if name != control]
    if treatment is None and len(others) == 1:
        treatment = others[0]
    if treatment is None or treatment not in others:
        raise ConfigurationError(
            f"the treatment is {treatment!r}; expected --treatment {' or '.join(others)}: variants are compared in "
            "pairs, and each further pair is a further chance of a false finding (lower --alpha for it)"
        )
    groups = users.variants[control], users.variants[treatment]
    ratio_p_value = _sample_ratio_p_value(*groups)
    ratio_ok = ratio_p_value >= SAMPLE_RATIO_ALPHA
    return Comparison(
        experiment=users.experiment,
        control=control,
        treatment=treatment,
        control_users=counts[control],
        treatment_users=counts[treatment],
        sample_ratio_p_value=ratio_p_value,
        sample_ratio_ok=ratio_ok,
        alpha=alpha,
        effect=effect,
        metrics=_compare_metrics(*groups, alpha, effect, comparable=ratio_ok),
    )


def _sample_ratio_p_value(control: VariantUsers, treatment: VariantUsers) -> float:
    from scipy import stats

    total, shares = control.count + treatment.count, control.share + treatment.share
    expected = [total * group.share / shares for group in (control, treatment)]
    return float(stats.chisquare([control.count, treatment.count], expected).pvalue)


def _compare_metrics(
    control: VariantUsers, treatment: VariantUsers, alpha: float, effect: float, *, comparable: bool
) -> tuple[MetricComparison, ...]:
    """Test what can be tested; only that counts in the correction for several metrics."""
    metrics = [metric for metric in ALL_METRICS if metric in control.values]
    pairs = {metric: (control.values[metric], treatment.values[metric]) for metric in metrics}
    obstacles = {metric: _obstacle(*pair) for metric, pair in pairs.items()}
    tests = {metric: welch_test(*pair) for metric, pair in pairs.items() if obstacles[metric] is None}
    levels = dict(zip(tests, holm_levels(np.array([test.p_value for test in tests.values()]), alpha), strict=True))
    compared = []
    for metric, pair in pairs.items():
        means = float(pair[0].mean()), float(pair[1].mean())
        measured: dict[str, Any] = {"low": None, "high": None, "confidence": None, "p_value": None}
        finding: Finding = "undecided"
        if metric in tests:
            level, p_value = float(levels[metric]), float(tests[metric].p_value)
            low, high = (float(end) for end in tests[metric].interval(1 - level))
            measured = {"low": low, "high": high, "confidence": 1 - level, "p_value": p_value}
            if comparable:
                finding = "none" if p_value > level else "higher" if means[1] > means[0] else "lower"
        compared.append(
            MetricComparison(
                metric,
                *means,
                difference=means[1] - means[0],
                finding=finding,
                obstacle=obstacles[metric] if comparable else "the users cannot have been assigned as planned",
                users_needed=users_needed(*pair, effect, alpha / max(1, len(tests))),
                **measured,
            )
        )
    return tuple(compared)


def _obstacle(control: Array, treatment: Array) -> str | None:
    if min(len(control), len(treatment)) < MIN_USERS:
        return f"fewer than {MIN_USERS} users in a variant"
    if not control.any() and not treatment.any():
        return "nothing was logged for it"
    if skewness_of_difference(control, treatment) > MAX_SKEWNESS:
        return "it is too rare or too uneven for so small a variant"
    return None

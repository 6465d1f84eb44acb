"""The statistics of an experiment: against scipy, and on simulated traffic with and without an effect."""

import numpy as np
import numpy.typing as npt
import pytest
from lychee_client import ConfigurationError, InvalidInputError
from lychee_evaluate.experiments import ab_test
from lychee_evaluate.experiments.ab_test import (
    Comparison,
    compare,
    holm_levels,
    skewness_of_difference,
    users_needed,
    welch_test,
)
from lychee_evaluate.experiments.users import METRICS, ExperimentUsers, VariantUsers
from scipy import stats

Array = npt.NDArray[np.float64]


def simulate(rng: np.random.Generator, users: int, share: float = 0.5, effect: float = 0.0) -> VariantUsers:
    """Draw users whose clicks depend on what they were shown, and whose reading time has a long tail.

    Args:
        rng: Source of chance.
        users: How many.
        share: Planned share of the variant.
        effect: Relative change of clicks and conversions.
    """
    impressions = rng.poisson(8, users)
    clicks = rng.binomial(impressions, 0.15 * (1 + effect))
    dwell_s = clicks * rng.lognormal(3, 1, users)
    conversions = rng.random(users) < 0.05 * (1 + effect)
    values = (impressions, clicks, dwell_s, conversions)
    return VariantUsers(share, {metric: value.astype(float) for metric, value in zip(METRICS, values, strict=True)})


def pair(control: VariantUsers, treatment: VariantUsers) -> ExperimentUsers:
    return ExperimentUsers("shop", {"control": control, "treatment": treatment}, (), ())


def constant(users: int, **values: float) -> VariantUsers:
    return VariantUsers(0.5, {metric: np.full(users, values.get(metric, 0.0)) for metric in METRICS})


def findings(comparison: Comparison) -> dict[str, str]:
    return {metric.metric: metric.finding for metric in comparison.metrics}


def test_welch_test_equals_scipy_row_by_row() -> None:
    rng = np.random.default_rng(0)
    control, treatment = rng.lognormal(size=(5, 40)), rng.lognormal(sigma=2, size=(5, 17))
    test, expected = welch_test(control, treatment), stats.ttest_ind(treatment, control, axis=-1, equal_var=False)
    interval = expected.confidence_interval(0.9)
    np.testing.assert_allclose(test.p_value, expected.pvalue, rtol=1e-9)
    np.testing.assert_allclose(test.degrees_of_freedom, expected.df, rtol=1e-9)
    np.testing.assert_allclose(test.interval(0.9), (interval.low, interval.high), rtol=1e-9)


@pytest.mark.parametrize(("value", "p_value"), [(3.0, 1.0), (4.0, 0.0)])
def test_welch_test_of_samples_that_do_not_vary(value: float, p_value: float) -> None:
    test = welch_test(np.full(50, 3.0), np.full(40, value))
    assert (float(test.p_value), float(test.difference)) == (p_value, value - 3)
    assert test.interval(0.95) == (value - 3, value - 3)


@pytest.mark.parametrize(
    ("p_values", "levels"),
    [
        ([], []),
        ([0.5], [0.04]),
        ([0.5, 0.005, 0.011, 0.03], [0.02, 0.01, 0.04 / 3, 0.02]),
        ([0.02, 0.5], [0.02, 0.04]),
        # The second fails, so the third fails too, although 0.021 would be below 0.04.
        ([0.001, 0.0205, 0.021], [0.04 / 3, 0.02, 0.02]),
        ([1.0, 1.0], [0.02, 0.02]),
    ],
)
def test_holm_tests_the_smallest_first_and_stops_at_the_first_failure(
    p_values: list[float], levels: list[float]
) -> None:
    np.testing.assert_allclose(holm_levels(np.array(p_values), 0.04), levels)


def false_alarms(control: Array, treatment: Array) -> float:
    return float((welch_test(control, treatment).p_value <= 0.05).mean())


@pytest.mark.parametrize(("control_users", "treatment_users"), [(30, 30), (200, 200), (900, 300)])
def test_welch_test_keeps_its_error_rate_where_the_skewness_rule_allows_it(
    control_users: int, treatment_users: int
) -> None:
    rng = np.random.default_rng(1)
    control = (rng.random((4_000, control_users)) < 0.2).astype(float)
    treatment = (rng.random((4_000, treatment_users)) < 0.2).astype(float)
    assert skewness_of_difference(control[0], treatment[0]) <= ab_test.MAX_SKEWNESS
    assert false_alarms(control, treatment) <= 0.0625  # 0.05 and 3.6 standard errors of 4,000 trials


def test_skewness_rule_stops_a_test_that_would_give_false_alarms() -> None:
    rng = np.random.default_rng(2)
    control = (rng.random((4_000, 900)) < 0.03).astype(float)
    treatment = (rng.random((4_000, 100)) < 0.03).astype(float)
    assert false_alarms(control, treatment) > 0.07
    assert all(
        skewness_of_difference(*rows) > ab_test.MAX_SKEWNESS for rows in zip(control[:50], treatment, strict=False)
    )


def test_without_an_effect_it_stays_silent_at_the_stated_rate() -> None:
    rng, trials, alpha = np.random.default_rng(3), 200, 0.05
    alarms = 0
    for _ in range(trials):
        found = findings(compare(pair(simulate(rng, 250), simulate(rng, 250)), alpha=alpha))
        assert "undecided" not in found.values()
        alarms += set(found.values()) != {"none"}
    assert 1 <= alarms <= stats.binom.ppf(0.999, trials, alpha)


def test_known_effect_is_found_with_the_stated_power() -> None:
    rng, trials, effect = np.random.default_rng(4), 60, 0.2
    large = simulate(rng, 20_000), simulate(rng, 20_000, effect=effect)
    clicks = [variant.values["clicks"] for variant in large]
    needed = users_needed(clicks[0], clicks[1], effect, 0.05 / 4)
    assert needed is not None
    found = 0
    for _ in range(trials):
        users = pair(simulate(rng, needed // 2), simulate(rng, needed // 2, effect=effect))
        (result,) = [metric for metric in compare(users, effect=effect).metrics if metric.metric == "clicks"]
        assert result.finding in ("higher", "none")
        found += result.finding == "higher"
    assert found >= stats.binom.ppf(0.001, trials, ab_test.POWER)


def test_half_the_users_needed_have_less_power() -> None:
    rng, effect = np.random.default_rng(5), 0.3
    sample = rng.poisson(1.0, 100_000).astype(float), rng.poisson(1.3, 100_000).astype(float)
    needed = users_needed(*sample, effect, 0.05)
    assert needed is not None
    power = {}
    for users in (needed // 2, needed // 4):
        drawn = rng.poisson(1.0, (2_000, users)).astype(float), rng.poisson(1.3, (2_000, users)).astype(float)
        power[users] = false_alarms(*drawn)
    assert power[needed // 2] == pytest.approx(ab_test.POWER, abs=0.03)
    assert power[needed // 4] < 0.6


def test_users_needed_allow_for_several_metrics_and_rare_events() -> None:
    rng = np.random.default_rng(13)
    groups = simulate(rng, 900, share=0.9), simulate(rng, 100, share=0.1)
    impressions, *_, conversions = compare(pair(*groups), effect=0.1, alpha=0.04).metrics
    assert impressions.users_needed == users_needed(
        groups[0].values["impressions"], groups[1].values["impressions"], 0.1, 0.04 / 2
    )  # two metrics are tested, two are undecided
    rare = groups[0].values["conversions"], groups[1].values["conversions"]
    skewed = 1_000 * (skewness_of_difference(*rare) / ab_test.MAX_SKEWNESS) ** 2
    assert users_needed(*rare, effect=10.0, alpha=0.05) == pytest.approx(skewed, abs=1)
    assert conversions.finding == "undecided"


def test_interval_covers_the_true_difference_and_agrees_with_the_finding() -> None:
    rng, trials = np.random.default_rng(6), 60
    covered = 0
    for _ in range(trials):
        clicks = compare(pair(simulate(rng, 300), simulate(rng, 300, effect=0.25))).metrics[1]
        assert clicks.low is not None
        assert clicks.high is not None
        covered += clicks.low <= 8 * 0.15 * 0.25 <= clicks.high
        assert (clicks.finding == "none") == (clicks.low <= 0 <= clicks.high)
        assert clicks.confidence is not None
        assert clicks.confidence >= 0.95
    assert covered >= stats.binom.ppf(0.001, trials, 0.95)


def test_sample_ratio_mismatch_leaves_everything_undecided() -> None:
    rng = np.random.default_rng(7)
    lost = compare(pair(simulate(rng, 1_000), simulate(rng, 800, effect=0.5)))
    assert lost.sample_ratio_p_value == pytest.approx(stats.chisquare([1_000, 800]).pvalue)
    assert not lost.sample_ratio_ok
    assert set(findings(lost).values()) == {"undecided"}
    planned = compare(pair(simulate(rng, 900, share=0.9), simulate(rng, 100, share=0.1)))
    assert planned.sample_ratio_ok
    assert planned.sample_ratio_p_value == 1


def test_too_few_users_give_no_finding_but_a_number() -> None:
    rng = np.random.default_rng(9)
    few = compare(pair(simulate(rng, 29), simulate(rng, 29, effect=3.0)))
    assert set(findings(few).values()) == {"undecided"}
    assert few.metrics[1].obstacle == "fewer than 30 users in a variant"
    assert few.metrics[1].users_needed is not None
    one = compare(pair(constant(1, clicks=1), constant(1, clicks=2)))
    assert [metric.users_needed for metric in one.metrics] == [None] * 4


def test_metric_without_any_event_is_undecided_and_not_counted() -> None:
    rng = np.random.default_rng(10)
    groups = []
    for _ in range(2):
        clicks = rng.poisson(2, 100).astype(float)
        groups.append(VariantUsers(0.5, {metric: clicks * (metric == "clicks") for metric in METRICS}))
    comparison = compare(pair(*groups), alpha=0.1)
    assert findings(comparison) == {"impressions": "undecided", "clicks": "none"} | dict.fromkeys(
        ("dwell_s", "conversions"), "undecided"
    )
    assert comparison.metrics[1].confidence == pytest.approx(0.9)
    assert comparison.metrics[0].obstacle == "nothing was logged for it"
    assert comparison.metrics[0].users_needed is None


def test_rare_events_in_a_small_variant_are_undecided() -> None:
    rng = np.random.default_rng(11)
    comparison = compare(pair(simulate(rng, 900, share=0.9), simulate(rng, 100, share=0.1)))
    assert findings(comparison)["conversions"] == "undecided"
    needed = comparison.metrics[3].users_needed
    assert needed is not None
    assert needed > 1_000


def test_direction_is_that_of_the_treatment() -> None:
    comparison = compare(pair(constant(40, impressions=10, clicks=1), constant(40, impressions=9, clicks=2)))
    assert findings(comparison) == {
        "impressions": "lower",
        "clicks": "higher",
        "dwell_s": "undecided",
        "conversions": "undecided",
    }
    turned = compare(pair(constant(40, clicks=1), constant(40, clicks=2)), control="treatment")
    assert (turned.control, turned.metrics[1].finding, turned.metrics[1].difference) == ("treatment", "lower", -1)


@pytest.mark.parametrize("alpha", [0, 0.5, -1, float("nan")])
def test_bad_alpha_is_refused(alpha: float) -> None:
    with pytest.raises(ConfigurationError, match="alpha is"):
        compare(pair(constant(40), constant(40)), alpha=alpha)


@pytest.mark.parametrize("effect", [0, -0.1, float("inf"), float("nan")])
def test_bad_effect_is_refused(effect: float) -> None:
    with pytest.raises(ConfigurationError, match="effect is"):
        compare(pair(constant(40), constant(40)), effect=effect)


def test_unknown_control_lists_the_variants() -> None:
    with pytest.raises(ConfigurationError, match="expected --control control or treatment"):
        compare(pair(constant(40), constant(40)), control="old")


@pytest.mark.parametrize("users", [{}, {"control": 5}, {"control": 5, "treatment": 0}])
def test_fewer_than_two_variants_with_users_are_refused(users: dict[str, int]) -> None:
    variants = {name: constant(count) for name, count in users.items()}
    with pytest.raises(InvalidInputError, match="expected two variants with users in both"):
        compare(ExperimentUsers("shop", variants, (), ()))


def test_of_several_treatments_one_is_chosen() -> None:
    users = ExperimentUsers("shop", {name: constant(40) for name in ("control", "b", "c")}, (), ())
    assert compare(users, treatment="c").treatment == "c"
    for treatment in (None, "d", "control"):
        with pytest.raises(ConfigurationError, match="expected --treatment b or c"):
            compare(users, treatment=treatment)

"""The statistics of a calibration, on data whose truth is known.

Scores are uniform on [0, 1] and a pair is relevant with the probability of its score. Then precision from threshold t
on is (1 + t) / 2, recall is 1 - t^2, and F1 is best where t^2 - 3t + 1 = 0.
"""

import io
import math
import warnings
from typing import Any

import numpy as np
import PIL.Image
import pytest
from lychee_client import ConfigurationError, InvalidInputError
from lychee_client.manifest import ModelIdentity
from lychee_client.score_mapping import IsotonicMapping, PlattMapping
from lychee_evaluate.calibration import report as calibration_report
from lychee_evaluate.calibration.mapping_fit import fit_mapping
from lychee_evaluate.calibration.pair_scores import PairScores
from lychee_evaluate.calibration.pairs import Pair
from lychee_evaluate.calibration.reliability import _deal_out, expected_calibration_error, measure_reliability
from lychee_evaluate.calibration.report import draw_report, make_report
from lychee_evaluate.calibration.threshold_search import (
    Target,
    WeightedCurve,
    average_precision,
    bootstrap_interval,
    choose_threshold,
    parse_target,
)
from scipy.stats import binomtest
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, f1_score, precision_recall_curve, precision_score, recall_score

TRUE_THRESHOLDS = {"precision>=0.9": 0.8, "recall>=0.9": math.sqrt(0.1), "f1": (3 - math.sqrt(5)) / 2}


def draw(pairs: int, seed: int) -> tuple[Any, Any]:
    random = np.random.default_rng(seed)
    scores = random.random(pairs)
    return scores, (random.random(pairs) < scores).astype(float)


def make_scored(scores: Any, labels: Any, pairs_per_query: int = 2, **changes: Any) -> PairScores:
    pairs = tuple(
        Pair(index + 2, f"q{index // pairs_per_query}", None, f"t{index}", None, None, bool(label))
        for index, label in enumerate(labels)
    )
    clipped = np.clip(scores, 1e-12, 1 - 1e-12)
    identity = ModelIdentity("模型$x", "r", "fp32", {})
    values: dict[str, Any] = {
        "skipped": (),
        "truncated": (),
        "model": identity,
        "instruction": None,
        "warnings": (),
    } | changes
    return PairScores(pairs, np.asarray(scores, float), np.log(clipped / (1 - clipped)), **values)


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("precision>=0.95", Target("precision", 0.95)),
        (" Recall >= .9 ", Target("recall", 0.9)),
        ("precision≥1", Target("precision", 1.0)),
        ("F1", Target("f1")),
    ],
)
def test_targets(text: str, target: Target) -> None:
    assert parse_target(text) == target
    assert parse_target(str(target)) == target


@pytest.mark.parametrize(
    "text", ["", "precision", "precision>0.9", "f1>=0.5", "recall>=0", "recall>=90", "accuracy>=1"]
)
def test_unknown_targets_are_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="expected 'precision>=P'"):
        parse_target(text)


def test_curve_equals_scikit_learn_for_every_weighting() -> None:
    scores, labels = draw(200, 1)
    scores = scores.round(1)  # many ties
    weights = np.random.default_rng(2).integers(0, 3, size=(20, 200))
    curve = WeightedCurve(scores, labels, weights)
    for row, weight in enumerate(weights):
        precisions, recalls, thresholds = precision_recall_curve(labels, scores, sample_weight=weight)
        drawn = curve.drawn[row]
        np.testing.assert_array_equal(curve.candidates[drawn], thresholds)
        np.testing.assert_allclose(curve.precisions[row, drawn], precisions[:-1])
        np.testing.assert_allclose(curve.recalls[row, drawn], recalls[:-1])


@pytest.mark.parametrize("target", TRUE_THRESHOLDS)
@pytest.mark.parametrize("seed", range(5))
def test_choice_says_what_its_threshold_does(target: str, seed: int) -> None:
    scores, labels = draw(61, seed)
    choice = choose_threshold(scores, labels, parse_target(target))
    decisions = scores >= choice.threshold
    assert choice.precision == pytest.approx(precision_score(labels, decisions))
    assert choice.recall == pytest.approx(recall_score(labels, decisions))
    assert choice.f1 == pytest.approx(f1_score(labels, decisions))
    assert choice.threshold not in scores


@pytest.mark.parametrize(
    ("target", "threshold"),
    [("precision>=0.75", 0.35), ("precision>=1", 0.7), ("recall>=0.5", 0.7), ("recall>=0.7", 0.35), ("f1", 0.35)],
)
def test_threshold_lies_half_way_to_the_next_score(target: str, threshold: float) -> None:
    scores = np.array([0.9, 0.8, 0.6, 0.4, 0.3, 0.1])
    labels = np.array([1, 1, 0, 1, 0, 0.0])
    assert choose_threshold(scores, labels, parse_target(target)).threshold == pytest.approx(threshold)


def test_threshold_that_accepts_everything_is_the_lowest_score() -> None:
    assert choose_threshold(np.array([0.2, 0.9]), np.array([1.0, 1.0]), parse_target("precision>=1")).threshold == 0.2


def test_equal_scores_stay_together() -> None:
    scores, labels = np.array([1.0, 1.0, 1.0, 0.0]), np.array([1, 1, 0, 0.0])
    assert choose_threshold(scores, labels, parse_target("precision>=0.6")).precision == pytest.approx(2 / 3)
    with pytest.raises(InvalidInputError, match=r"best precision is 0\.667, at threshold 0\.500 with recall 1\.000"):
        choose_threshold(scores, labels, parse_target("precision>=0.7"))


def test_neighbouring_numbers_do_not_let_the_rejected_one_in() -> None:
    rejected = 0.5
    accepted = math.nextafter(rejected, 1)  # half way rounds down, to the rejected one
    choice = choose_threshold(np.array([rejected, accepted]), np.array([0.0, 1.0]), parse_target("precision>=1"))
    assert rejected < choice.threshold <= accepted


@pytest.mark.parametrize("target", TRUE_THRESHOLDS)
def test_interval_covers_the_true_threshold_at_about_its_rate(target: str) -> None:
    repetitions, covered = 60, 0
    for seed in range(repetitions):
        scores, labels = draw(300, seed)
        interval = bootstrap_interval(
            scores, labels, np.arange(300), parse_target(target), resamples=200, confidence=0.9, seed=seed
        )
        covered += interval.low <= TRUE_THRESHOLDS[target] <= interval.high
    # At a true rate of 0.9, fewer than 47 or all of 60 happen in 1 of 100 cases; the percentile method is no better.
    assert 47 <= covered <= 60


def test_interval_counts_queries_and_not_pairs() -> None:
    scores, labels = draw(80, 3)
    options: dict[str, Any] = {"resamples": 400, "confidence": 0.95, "seed": 5}
    target = parse_target("recall>=0.8")
    once = bootstrap_interval(scores, labels, np.arange(80), target, **options)
    fourfold = np.repeat(scores, 4), np.repeat(labels, 4)
    by_query = bootstrap_interval(*fourfold, np.repeat(np.arange(80), 4), target, **options)
    by_pair = bootstrap_interval(*fourfold, np.arange(320), target, **options)
    assert by_query == once
    assert by_pair.high - by_pair.low < 0.7 * (once.high - once.low)


@pytest.mark.parametrize("target", TRUE_THRESHOLDS)
def test_resample_gives_what_the_same_pairs_would_give_alone(target: str) -> None:
    scores, labels = draw(60, 4)
    weights = np.random.default_rng(4).integers(0, 3, size=(10, 60))
    found = WeightedCurve(scores, labels, weights).choose(parse_target(target))
    alone = [choose_threshold(np.repeat(scores, w), np.repeat(labels, w), parse_target(target)) for w in weights]
    assert found.tolist() == [choice.threshold for choice in alone]


def test_resamples_without_the_target_widen_the_interval_to_the_top() -> None:
    scores, labels = np.linspace(0, 1, 40), np.zeros(40)
    labels[-1] = 1  # a resample without this pair, as more than a third are, has no relevant pair
    interval = bootstrap_interval(
        scores, labels, np.arange(40), parse_target("precision>=1"), resamples=1000, confidence=0.95, seed=0
    )
    assert interval.unreachable == pytest.approx(math.exp(-1), abs=0.05)
    assert interval.high == 1


def test_chunks_of_resamples_leave_the_kind_of_result_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, labels = draw(50, 0)

    def interval() -> Any:
        return bootstrap_interval(scores, labels, np.arange(50), Target("f1"), resamples=150, confidence=0.95, seed=1)

    whole = interval()
    monkeypatch.setattr("lychee_evaluate.calibration.threshold_search.MAX_CHUNK", 1)
    assert interval() == whole


def test_calibration_error_of_perfect_probabilities_is_small_and_of_wrong_ones_known() -> None:
    scores, labels = draw(20_000, 0)
    assert expected_calibration_error(scores, labels) < 0.015
    assert expected_calibration_error(np.full(10, 0.9), np.repeat([0.0, 1.0], 5)) == pytest.approx(0.4)
    assert expected_calibration_error(np.array([0.0, 1.0]), np.array([0.0, 1.0])) == 0
    assert expected_calibration_error(np.array([0.0, 1.0]), np.array([1.0, 0.0])) == 1


def test_calibration_error_keeps_bins_apart() -> None:
    # Over all four the gaps cancel; in their bins, [0.1, 0.2) and [0.8, 0.9), they do not.
    probabilities, labels = np.array([0.1, 0.15, 0.8, 0.85]), np.array([1, 0, 0, 1.0])
    assert expected_calibration_error(probabilities, labels) == pytest.approx((0.75 + 0.65) / 4)


@pytest.mark.parametrize("kind", ["platt", "isotonic"])
def test_mapping_finds_the_true_probabilities(kind: Any) -> None:
    random = np.random.default_rng(0)
    logits = random.normal(0, 2, 4000)
    truth = 1 / (1 + np.exp(-(0.5 * logits + 1)))
    labels = (random.random(4000) < truth).astype(float)
    error = np.abs(fit_mapping(kind, logits, labels).probability(logits) - truth).mean()
    assert error < (0.015 if kind == "platt" else 0.03)
    reliability = measure_reliability(kind, 1 / (1 + np.exp(-logits)), logits, labels, np.arange(4000) // 4, 0)
    assert reliability.before > 0.1
    assert reliability.after is not None
    assert reliability.after < 0.03
    assert reliability.chance < 0.03


def test_platt_stays_finite_where_a_threshold_separates_the_labels() -> None:
    logits, labels = np.array([-30.0] * 20 + [25.0] * 15), np.array([0.0] * 20 + [1.0] * 15)
    probabilities = fit_mapping("platt", logits, labels).probability(np.array([-30.0, 25.0]))
    np.testing.assert_allclose(probabilities, [1 / 22, 16 / 17], atol=1e-4)  # Platt's labels, pulled in


def test_mappings_of_equal_logits_are_level() -> None:
    logits, labels = np.zeros(10), np.array([1.0] * 3 + [0.0] * 7)
    platt, isotonic = fit_mapping("platt", logits, labels), fit_mapping("isotonic", logits, labels)
    assert isinstance(platt, PlattMapping)
    assert platt.slope == 0
    assert isotonic == IsotonicMapping((0.0,), (0.3,))


def test_mappings_are_those_of_scikit_learn() -> None:
    random = np.random.default_rng(5)
    logits = random.normal(1, 3, 300).round(1)  # some of them equal
    labels = (random.random(300) < 1 / (1 + np.exp(-logits))).astype(float)
    rising = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(logits, labels)
    grid = np.linspace(-9, 9, 100)
    np.testing.assert_allclose(
        fit_mapping("isotonic", logits, labels).probability(grid), rising.predict(grid), atol=1e-9
    )
    assert len(fit_mapping("isotonic", logits, labels).logits) == len(rising.X_thresholds_)
    positives = labels.sum()
    soft = np.where(labels > 0, (positives + 1) / (positives + 2), 1 / (300 - positives + 2))
    logistic = LogisticRegression(C=np.inf, tol=1e-9).fit(
        np.tile(logits, 2)[:, None], np.repeat([1.0, 0.0], 300), np.concatenate([soft, 1 - soft])
    )
    platt = fit_mapping("platt", logits, labels)
    np.testing.assert_allclose(platt.probability(grid), logistic.predict_proba(grid[:, None])[:, 1], atol=1e-4)


def test_average_precision_is_that_of_scikit_learn() -> None:
    scores, labels = draw(200, 6)
    for values in (scores, scores.round(1)):
        assert average_precision(values, labels) == pytest.approx(average_precision_score(labels, values))


@pytest.mark.parametrize(("relevant", "accepted"), [(0, 7), (7, 7), (18, 20), (1, 400), (950, 1000)])
def test_lower_bound_is_that_of_scipys_exact_interval(relevant: int, accepted: int) -> None:
    exact = binomtest(relevant, accepted).proportion_ci(0.95, method="exact").low
    assert calibration_report._lower_bound(relevant, accepted) == pytest.approx(exact, abs=1e-9)


def test_folds_keep_queries_whole_and_share_the_classes_out() -> None:
    labels = (np.arange(120) % 3 == 0).astype(float)
    queries = np.arange(120) // 4
    fold_of = _deal_out(labels, queries, 5, 0)
    assert all(len(set(fold_of[queries == query])) == 1 for query in range(30))
    assert max(np.bincount(fold_of)) - min(np.bincount(fold_of)) <= 4
    relevant = [labels[fold_of == fold].sum() for fold in range(5)]
    assert max(relevant) - min(relevant) <= 2
    assert not np.array_equal(fold_of, _deal_out(labels, queries, 5, 1))


def test_calibration_error_is_not_measured_on_what_the_mapping_was_fitted_to() -> None:
    random = np.random.default_rng(1)
    logits, labels = random.normal(size=60), random.integers(0, 2, 60).astype(float)  # nothing to learn
    fitted = expected_calibration_error(fit_mapping("isotonic", logits, labels).probability(logits), labels)
    held_out = measure_reliability("isotonic", np.full(60, 0.5), logits, labels, np.arange(60), 0).after
    assert fitted < 0.01
    assert held_out is not None
    assert held_out > 0.1


def test_calibration_error_is_not_measured_where_one_query_has_all_of_a_class() -> None:
    labels = np.array([1.0] * 6 + [0.0] * 20)
    queries = np.array([0] * 6 + list(range(1, 21)))
    assert measure_reliability("platt", labels, labels, labels, queries, 0).after is None


def test_report_rests_on_the_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, labels = draw(200, 4)
    report = make_report(make_scored(scores, labels), parse_target("precision>=0.8"), seed=3)
    calibration = report.calibration
    assert (calibration.pairs, calibration.positives, calibration.queries) == (200, int(labels.sum()), 100)
    assert calibration.threshold_low < calibration.threshold < calibration.threshold_high
    assert calibration.review_threshold == calibration.threshold
    assert calibration.precision >= 0.8 > report.precision_low
    assert report.accepted == (scores >= calibration.threshold).sum()
    assert report.pairs_for_half_width == 800
    assert [row.threshold for row in report.table] == sorted(
        {*calibration_report.TABLE_THRESHOLDS, calibration.threshold}
    )
    for row in report.table:
        assert row.accepted == (scores >= row.threshold).sum()
        assert row.recall == pytest.approx(recall_score(labels, scores >= row.threshold))
    assert report.warnings == ()
    again = make_report(make_scored(scores, labels), parse_target("precision>=0.8"), seed=3)
    assert again.calibration.threshold_low == calibration.threshold_low
    assert again.reliability == report.reliability


def test_best_f1_narrows_with_the_cube_root() -> None:
    assert make_report(make_scored(*draw(100, 0)), Target("f1"), resamples=100).pairs_for_half_width == 800


def test_review_band_reaches_down_to_the_interval() -> None:
    calibration = make_report(make_scored(*draw(200, 0)), Target("f1"), review_band=True, resamples=100).calibration
    assert calibration.review_threshold == calibration.threshold_low < calibration.threshold
    assert calibration.policy.review == calibration.threshold_low


def test_table_has_no_precision_where_nothing_is_accepted() -> None:
    scores, labels = draw(100, 0)
    report = make_report(make_scored(scores * 0.5, labels), Target("f1"), resamples=100)
    assert report.table[-1].precision is None
    assert report.table[-1].recall == 0


@pytest.mark.parametrize(
    ("pairs", "target", "options", "words"),
    [
        ((np.linspace(0, 1, 21), [0.0] * 11 + [1.0] * 10, 3), "f1", {}, ("21 pairs", "7 different queries")),
        ((*draw(100, 1), 2), "precision>=0.97", {}, ("accepted pairs: it may be as low as", "of the resamples no")),
        ((1 - draw(100, 1)[0], draw(100, 1)[1], 2), "f1", {}, ("do not score higher",)),
        ((*draw(100, 1), 2), "f1", {"mapping": "isotonic"}, ("isotonic mapping of 100 pairs",)),
        ((*draw(300, 1), 2), "f1", {"mapping": "isotonic"}, ("the mapping does not help",)),
    ],
)
def test_doubts_are_told(pairs: Any, target: str, options: Any, words: tuple[str, ...]) -> None:
    report = make_report(make_scored(*pairs), parse_target(target), resamples=100, **options)
    told = "\n".join(report.warnings)
    assert all(word in told for word in words), told


def test_truncated_texts_and_the_clients_warnings_are_told() -> None:
    scored = make_scored(*draw(100, 0), truncated=(3, 4), warnings=("the model reads no instruction",))
    told = make_report(scored, Target("f1"), resamples=100).warnings
    assert told[0] == "the model reads no instruction"
    assert any("2 texts are longer" in words for words in told)


@pytest.mark.parametrize(
    ("labels", "pairs_per_query", "message"),
    [
        ([1.0] * 10 + [0.0] * 9, 1, "19 usable pairs are too few"),
        ([1.0] * 30, 1, "0 of 30 usable pairs have the label 0"),
        ([0.0] * 26 + [1.0] * 4, 1, "4 of 30 usable pairs have the label 1"),
        ([1.0, 0.0] * 15, 30, "1 different queries"),
        ([], 1, "0 usable pairs"),
    ],
)
def test_too_little_evidence_is_refused(labels: list[float], pairs_per_query: int, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        make_report(make_scored(np.linspace(0, 1, len(labels)), labels, pairs_per_query), Target("f1"))


def test_scores_that_are_not_finite_are_refused() -> None:
    scores, labels = draw(50, 0)
    scores[7] = np.nan
    with pytest.raises(InvalidInputError, match="not finite"):
        make_report(make_scored(scores, labels), Target("f1"))


@pytest.mark.parametrize("resamples", [0, 99, 100_001])
def test_useless_number_of_resamples_is_refused(resamples: int) -> None:
    with pytest.raises(ConfigurationError, match="bootstrap"):
        make_report(make_scored(*draw(50, 0)), Target("f1"), resamples=resamples)


@pytest.mark.parametrize("name", ["usual", "separable", "one score per class"])
def test_picture_has_its_size_and_needs_no_foreign_glyph(name: str) -> None:
    scores, labels = draw(100, 0)
    if name != "usual":
        scores = np.where(labels > 0, 0.9, 0.2) if name == "separable" else labels
    scored = make_scored(scores, labels)
    report = make_report(scored, Target("f1"), resamples=100)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns of missing glyphs
        picture = PIL.Image.open(io.BytesIO(draw_report(report, scored)))
    assert (picture.format, picture.size) == ("PNG", (1200, 800))
    assert len(picture.convert("RGB").getcolors(maxcolors=1_000_000) or []) > 50

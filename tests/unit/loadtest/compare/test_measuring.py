"""Documents come once, loops count what they ranked, arithmetic is that of the published architecture."""

from __future__ import annotations

from itertools import count, pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from lychee_loadtest.compare import contestants
from lychee_loadtest.compare.ceiling import Arithmetic, write_products
from lychee_loadtest.compare.checkpoint import VOCABULARY, make_merges, write_tokenizer
from lychee_loadtest.compare.contestants import ALTERNATIVES, Contestant, Place, why_left_out
from lychee_loadtest.compare.documents import Call, Documents
from lychee_loadtest.compare.environments import PreparationError
from lychee_loadtest.compare.measuring import WORKLOADS, Workload, draw_calls, measure
from lychee_loadtest.compare.rounds import OURS, Tournament
from lychee_loadtest.compare.verdicts import FLOAT32, Precision
from lychee_loadtest.quantile import quantile
from transformers import CLIPTokenizer


class Counting:
    """Ranks by the length of a text."""

    def __init__(self, factor: float = 1.0, noise: float = 0.0) -> None:
        self.calls: list[Call] = []
        self._factor = factor
        self._noise = noise

    def rank(self, call: Call) -> np.ndarray:
        self.calls.append(call)
        scores = np.array([sum(map(ord, str(document))) % 997 for document in call.documents], np.float64)
        away = np.where(np.arange(len(scores)) % 2, 1.0, -1.0) * self._noise * scores.std()
        return self._factor * (scores + away)


class Failing:
    """Ranks nothing."""

    def rank(self, call: Call) -> np.ndarray:
        raise RuntimeError(f"no scores for {call.query}")


def test_equal_seeds_draw_equal_documents_and_others_draw_others() -> None:
    for kind in ("texts", "photos"):
        first, again, other = (Documents(*seed).call(kind, 12) for seed in ((1, 0), (1, 0), (0, 1)))
        assert first == again
        assert not set(first.documents) & set(other.documents)
        assert len(set(first.documents)) == 12


def test_photos_are_jpeg_files_and_texts_have_different_lengths() -> None:
    documents = Documents(0)
    assert all(bytes(photo).startswith(b"\xff\xd8") for photo in documents.call("photos", 3).documents)  # type: ignore[arg-type]
    lengths = {str(text).count(" ") for text in documents.call("texts", 100).documents}
    assert min(lengths) == 4
    assert max(lengths) == 13


def test_loop_sends_every_call_once_and_counts_documents() -> None:
    calls = [Documents(number).call("texts", 5) for number in range(40)]
    caller = Counting()
    sample = measure(caller, calls, callers=4, seconds=60)
    assert sorted(call.query for call in caller.calls) == sorted(call.query for call in calls)
    assert len(sample.latencies_ms) == 40
    assert sample.documents_per_s > 0


def test_every_caller_ends_when_the_time_is_up_but_sends_one_call() -> None:
    caller = Counting()
    sample = measure(caller, [Documents(0).call("texts", 1)] * 10, callers=3, seconds=0.0)
    assert len(caller.calls) == len(sample.latencies_ms) == 3


def test_failed_call_ends_the_measurement() -> None:
    with pytest.raises(RuntimeError, match="no scores"):
        measure(Failing(), [Documents(0).call("texts", 1)], callers=2, seconds=60)


def test_enough_calls_are_drawn_for_every_caller_and_the_expected_rate() -> None:
    workload = Workload("x", "texts", 5, 16)
    assert len(draw_calls(Documents(0), workload, documents_per_s=0.0, seconds=1.0)) >= 16
    assert len(draw_calls(Documents(0), workload, documents_per_s=100.0, seconds=2.0)) >= 2.0 * 100.0 / 5


@pytest.mark.parametrize(("share", "expected"), [(0.5, 50.5), (0.99, 99.01)])
def test_quantiles_are_interpolated(share: float, expected: float) -> None:
    assert quantile(range(1, 101), share) == pytest.approx(expected)


def test_quantile_of_one_value_is_that_value() -> None:
    assert quantile([7.0], 0.99) == 7.0
    with pytest.raises(ValueError, match="at least one"):
        quantile([], 0.5)


def test_arithmetic_is_that_of_the_published_architecture() -> None:
    # ViT-B/32: 4.4 billion multiply-adds for an image of 224 x 224; the text tower has 37.8 million weights in layers.
    assert Arithmetic.of_photo() / 2e9 == pytest.approx(4.4, abs=0.1)
    assert Arithmetic.of_text(16) == pytest.approx(2 * 37.75e6 * 16, rel=0.02)


def test_matrix_products_are_a_valid_model_of_the_models_sizes(tmp_path: Path) -> None:
    path = tmp_path / "products.onnx"
    write_products(path, rows=4, width=8)
    onnx.checker.check_model(str(path))
    shapes = [tuple(weight.dims) for weight in onnx.load(path).graph.initializer]
    assert shapes == [(8, 32), (32, 8)] * 12


def test_tokenizer_has_clips_size_and_gives_words_few_tokens(tmp_path: Path) -> None:
    merges = make_merges()
    assert len(set(merges)) == len(merges)
    write_tokenizer(tmp_path, merges)
    tokenizer = CLIPTokenizer.from_pretrained(tmp_path)
    assert len(tokenizer) == VOCABULARY
    ids = tokenizer("a cat on the sofa")["input_ids"]
    assert ids[0] == VOCABULARY - 2
    assert ids[-1] == VOCABULARY - 1
    assert 7 <= len(ids) <= 12


@pytest.fixture
def cheap_photos(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count instead of encoding JPEG files."""
    monkeypatch.setattr(
        "lychee_loadtest.compare.documents.fresh_photos",
        lambda start: (b"%d %d" % (start, number) for number in count()),
    )


def make_tournament(precisions: dict[str, Precision] | None = None, **callers: Counting) -> Tournament:
    named = {"fastapi": Counting(), **callers, OURS[0]: Counting(), OURS[1]: Counting()}
    computed = {name: dict.fromkeys(FLOAT32, precision) for name, precision in (precisions or {}).items()}
    contestants = [
        Contestant(name, caller, {}, precisions=computed.get(name, FLOAT32)) for name, caller in named.items()
    ]
    return Tournament(contestants, seconds=0.0)


@pytest.mark.usefixtures("cheap_photos")
def test_every_round_measures_everyone_and_gives_ratios_with_targets() -> None:
    tournament = make_tournament(session=Counting())
    assert tournament.check(Documents(0))["texts"]["session"]["same_order"]
    tournament.warm_up()
    for number in range(2):
        tournament.run_round(number)
    assert all(len(rounds) == 2 for rates in tournament.rates.values() for rounds in rates.values())
    targets = {ratio.name: ratio.target for ratio in tournament.ratios()}
    assert targets["1 query x 20 photos: lychee / better torch service (fastapi)"] == 1.5
    assert targets["1 query x 20 photos: lychee gateway / better torch service (fastapi)"] is None
    assert targets["1 query x 20 photos: lychee / fastapi"] is None
    assert targets["1 query x 20 photos: lychee / session"] == 0.95
    assert targets["1 query x 20 photos: lychee gateway / fastapi"] is None
    assert len(targets) == len(WORKLOADS) * 2 * 3


@pytest.mark.usefixtures("cheap_photos")
def test_a_session_of_rounded_weights_may_be_a_little_further_ahead() -> None:
    tournament = make_tournament({"session": "rounded"}, session=Counting())
    tournament.warm_up()
    tournament.run_round(0)
    targets = {ratio.name: ratio.target for ratio in tournament.ratios()}
    assert targets["1 query x 100 texts: lychee / session"] == 0.9


def test_target_is_against_the_torch_service_that_is_faster_with_the_workload() -> None:
    tournament = make_tournament(**{"fastapi-bf16": Counting()})
    for workload, (single, half) in zip(WORKLOADS, [(10.0, 20.0), (40.0, 20.0), (10.0, 20.0)], strict=True):
        tournament.rates[workload.name] = {"fastapi": [single], "fastapi-bf16": [half], OURS[0]: [60.0], OURS[1]: [1.0]}
    better = {ratio.name: ratio for ratio in tournament.ratios() if "lychee / better" in ratio.name}
    assert {name: ratio.median for name, ratio in better.items()} == {
        "1 query x 20 photos: lychee / better torch service (fastapi-bf16)": 3.0,
        "1 query x 100 texts: lychee / better torch service (fastapi)": 1.5,
        "16 callers, 1 query x 5 texts: lychee / better torch service (fastapi-bf16)": 3.0,
    }
    assert all(ratio.met for ratio in better.values())
    medians = {ratio.name: ratio.median for ratio in tournament.ratios()}
    assert medians["1 query x 20 photos: lychee / fastapi"] == 6.0  # float32 stays beside it


@pytest.mark.usefixtures("cheap_photos")
def test_contestants_behind_one_cache_never_get_the_same_documents() -> None:
    tournament = make_tournament()
    tournament.warm_up()
    tournament.run_round(0)
    sent = {one.name: {text for call in one.caller.calls for text in call.documents} for one in tournament.contestants}  # type: ignore[attr-defined]
    assert not sent[OURS[0]] & sent[OURS[1]]
    assert sent["fastapi"] & sent[OURS[0]]


@pytest.mark.usefixtures("cheap_photos")
def test_contestant_that_ranks_something_else_is_named_before_anything_is_timed() -> None:
    tournament = make_tournament(infinity=Counting(factor=-1.0))
    with pytest.raises(PreparationError, match="infinity does not rank 50 texts as torch does"):
        tournament.check(Documents(0))


@pytest.mark.usefixtures("cheap_photos")
@pytest.mark.parametrize(
    ("precision", "noise", "accepted"),
    [
        ("fp32", 0.005, True),
        ("fp32", 0.042, False),
        ("bf16", 0.042, True),
        ("bf16", 0.28, False),
        ("rounded", 0.28, True),
    ],
)
def test_scores_may_differ_as_far_as_the_precision_that_computes_them(
    precision: Precision, noise: float, accepted: bool
) -> None:
    tournament = make_tournament({"session": precision}, session=Counting(noise=noise))
    if accepted:
        assert tournament.check(Documents(0))["texts"]["session"]["precision"] == precision
        return
    with pytest.raises(PreparationError, match=rf"session does not rank 50 texts .* \({precision}\)"):
        tournament.check(Documents(0))


def test_torch_in_bfloat16_takes_part_only_where_the_cpu_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contestants, "computes_bfloat16", lambda: True)
    assert not any(map(why_left_out, ALTERNATIVES))
    monkeypatch.setattr(contestants, "computes_bfloat16", lambda: False)
    assert [name for name in ALTERNATIVES if why_left_out(name)] == ["fastapi-bf16"]
    assert "avx512_bf16" in str(why_left_out("fastapi-bf16"))


def test_one_service_in_two_precisions_has_one_environment(tmp_path: Path) -> None:
    place = Place(tmp_path, "fp32", tmp_path)
    assert place.environment("fastapi-bf16") == place.environment("fastapi")
    assert place.environment("infinity") != place.environment("fastapi")


@pytest.mark.usefixtures("cheap_photos")
def test_rounds_begin_with_different_contestants() -> None:
    tournament = make_tournament()
    order: list[str] = []
    for one in tournament.contestants:
        rank = one.caller.rank
        one.caller.rank = lambda call, name=one.name, rank=rank: (order.append(name), rank(call))[1]  # type: ignore[attr-defined]
    tournament.warm_up()
    firsts = []
    for number in range(2):
        order.clear()
        tournament.run_round(number)
        firsts.append(order[0])
    assert firsts[0] != firsts[1]
    assert all(earlier == "fastapi" or later for earlier, later in pairwise(order))

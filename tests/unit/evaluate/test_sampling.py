"""Which pairs are chosen for labelling."""

from pathlib import Path

import numpy as np
import pytest
from lychee_client import ConfigurationError
from lychee_evaluate.calibration.pairs import Pair, read_pairs
from lychee_evaluate.calibration.sampling import choose_pairs, format_label_sheet


def test_most_pairs_lie_near_the_border_and_the_others_in_every_band() -> None:
    scores = np.random.default_rng(0).random(5000)
    chosen = choose_pairs(scores, np.arange(5000), count=50, threshold=0.55)
    assert len(set(chosen)) == 50
    assert chosen == sorted(chosen)
    near = np.abs(scores[chosen] - 0.55) < 0.02
    assert near.sum() >= 30
    assert len(set((scores[chosen] * 10).astype(int))) == 10
    assert np.bincount((scores[chosen] * 10).astype(int)).min() >= 2


@pytest.mark.parametrize("threshold", [0.0, 0.3, 1.0])
def test_border_moves_with_the_threshold(threshold: float) -> None:
    scores = np.random.default_rng(0).random(2000)
    chosen = choose_pairs(scores, np.arange(2000), count=40, threshold=threshold)
    assert (np.abs(scores[chosen] - threshold) < 0.05).sum() >= 24


def test_queries_share_the_choice() -> None:
    random = np.random.default_rng(0)
    scores, queries = random.uniform(0.5, 0.6, 1000), np.repeat(np.arange(20), 50)
    uses = np.bincount(queries[choose_pairs(scores, queries, count=40, threshold=0.55)], minlength=20)
    assert (uses.min(), uses.max()) == (2, 2)


def test_query_far_from_the_border_does_not_push_out_near_pairs() -> None:
    scores = np.concatenate([np.full(30, 0.55), np.full(300, 0.99)])
    queries = np.concatenate([np.zeros(30, int), np.arange(1, 301)])
    chosen = choose_pairs(scores, queries, count=10, threshold=0.55)
    assert sum(index < 30 for index in chosen) >= 6


def test_same_seed_chooses_the_same_and_another_seed_decides_ties_otherwise() -> None:
    scores, queries = np.full(100, 0.5), np.arange(100)
    first = choose_pairs(scores, queries, count=10, threshold=0.55, seed=1)
    assert choose_pairs(scores, queries, count=10, threshold=0.55, seed=1) == first
    assert choose_pairs(scores, queries, count=10, threshold=0.55, seed=2) != first


@pytest.mark.parametrize("size", [0, 1, 10])
def test_fewer_pairs_than_wanted_are_all_taken(size: int) -> None:
    chosen = choose_pairs(np.linspace(0, 1, size), np.zeros(size, int), count=10, threshold=0.55)
    assert chosen == list(range(size))


def test_scores_at_the_ends_are_in_a_band() -> None:
    scores = np.array([0.0, 1.0] * 50)
    chosen = choose_pairs(scores, np.arange(100), count=20, threshold=0.5)
    assert scores[chosen].sum() == 10


@pytest.mark.parametrize(("count", "threshold"), [(0, 0.5), (-1, 0.5), (5, 1.5), (5, float("nan"))])
def test_useless_options_are_refused(count: int, threshold: float) -> None:
    with pytest.raises(ConfigurationError, match=r"count|threshold"):
        choose_pairs(np.zeros(10), np.zeros(10, int), count=count, threshold=threshold)


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_sheet_reads_back_with_paths_of_its_own_folder(tmp_path: Path, kind: str) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "sheets").mkdir()
    photo = tmp_path / "photos" / "猫.jpg"
    photo.write_bytes(b"x")
    pairs = [
        Pair(2, "=HYPERLINK(1)", None, "@text", photo, "指令"),
        Pair(3, None, photo, "'quoted', \"twice\"\nline", None, "指令"),
    ]
    path = tmp_path / "sheets" / f"sheet.{kind}"
    path.write_bytes(format_label_sheet(pairs, path, kind))
    assert str(tmp_path) not in path.read_text(encoding="utf-8")
    found = read_pairs(path, labelled=False).pairs
    assert [(pair.query, pair.text, pair.instruction, pair.relevant) for pair in found] == [
        (pair.query, pair.text, pair.instruction, None) for pair in pairs
    ]
    assert found[0].image is not None
    assert found[1].query_image is not None
    assert found[0].image.samefile(photo)
    assert found[1].query_image.samefile(photo)

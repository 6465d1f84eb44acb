"""Calibration files: what is written is read back, and what is wrong is named."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from lychee_client import Calibration, ConfigurationError, Policy
from lychee_client.manifest import ModelIdentity
from lychee_client.score_mapping import IsotonicMapping, PlattMapping

IDENTITY = ModelIdentity("lychee-mini", "abc", "w4", {"tokenizer": "a" * 64, "text_encoder": "b" * 64})


def make_calibration(**changes: Any) -> Calibration:
    calibration = Calibration(
        created_at="2026-11-22T09:30:00Z",
        client_version="0.1.0",
        model=IDENTITY,
        instruction="判断文档是否回答了问题",
        target="precision>=0.95",
        threshold=0.7123456789012345,
        threshold_low=0.6,
        threshold_high=0.8,
        confidence=0.95,
        review_threshold=0.6,
        precision=0.96,
        recall=0.5,
        f1=0.65,
        pairs=60,
        positives=20,
        queries=12,
        mapping=PlattMapping(1.5, -0.25),
        data_sha256="c" * 64,
    )
    return msgspec.structs.replace(calibration, **changes)


@pytest.mark.parametrize(
    "changes",
    [{}, {"instruction": None}, {"mapping": IsotonicMapping((-2.0, 0.0, 3.5), (0.0, 0.5, 1.0))}],
    ids=["platt", "no instruction", "isotonic"],
)
def test_load_gives_what_was_saved(tmp_path: Path, changes: dict[str, Any]) -> None:
    calibration = make_calibration(**changes)
    calibration.save(tmp_path / "校准.json")
    assert Calibration.load(tmp_path / "校准.json") == calibration
    assert "判断" in (tmp_path / "校准.json").read_text(encoding="utf-8") or calibration.instruction is None


def test_policy_accepts_from_the_threshold_and_reviews_below() -> None:
    assert make_calibration().policy == Policy("calibrated precision>=0.95", accept=0.7123456789012345, review=0.6)


def test_existing_file_is_kept_unless_it_may_be_replaced(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    path.write_text("mine")
    with pytest.raises(ConfigurationError, match="exists already"):
        make_calibration().save(path)
    assert path.read_text() == "mine"
    make_calibration().save(path, replace=True)
    assert Calibration.load(path) == make_calibration()


def test_failing_write_leaves_the_old_content_and_no_rubbish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "calibration.json"
    path.write_text("old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(ConfigurationError, match="No space left"):
        make_calibration().save(path, replace=True)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_replacing_keeps_permissions_and_symbolic_links(tmp_path: Path) -> None:
    target, link = tmp_path / "target.json", tmp_path / "link.json"
    target.write_text("old")
    target.chmod(0o640)
    link.symlink_to(target)
    make_calibration().save(link, replace=True)
    assert link.is_symlink()
    assert Calibration.load(target) == make_calibration()
    assert target.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("name", ["missing/calibration.json", "."])
def test_place_that_cannot_be_written_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"folder|plain file"):
        make_calibration().save(tmp_path / name, replace=True)


def changed(**changes: Any) -> str:
    return json.dumps(make_calibration().to_json() | changes)


MODEL = make_calibration().to_json()["model"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not JSON"),
        ("[]", r"it is \[\]; expected `object`"),
        ("[" * 100_000, "not JSON"),
        ("{}", "format_version is missing"),
        ('{"format_version": 1, "format_version": 1}', "format_version is there twice"),
        (changed(format_version=2), "format_version is 2, this client reads 1"),
        (changed(format_version=True), "format_version is True"),
        (changed(threshold="0.5"), "threshold is '0.5'"),
        (changed(threshold=1.5), "threshold is 1.5"),
        (changed(threshold=float("nan")), "threshold is nan"),
        (changed(threshold=10**400), "threshold is 1000"),
        (changed(review_threshold=0.9), "review_threshold is 0.9"),
        (changed(threshold_low=0.9), "threshold_low is 0.9"),
        (changed(positives=0), "positives 0"),
        (changed(queries=61), "queries 61"),
        (changed(instruction=5), "instruction is 5"),
        (changed(colour="red"), "colour is unknown"),
        (changed(model=MODEL | {"revision": 1}), "model.revision is 1"),
        (
            changed(model=MODEL | {"artifacts": {"tokenizer": 3}}),
            r"model.artifacts\[...\] is {'tokenizer': 3}; expected `str`",
        ),
        (changed(model=MODEL | {"size": 3}), "model.size is unknown"),
        (changed(mapping={"kind": "beta"}), "mapping.kind is 'beta'"),
        (changed(mapping={"kind": "platt", "slope": float("inf"), "intercept": 0}), "mapping.slope is inf"),
        (changed(mapping={"kind": "isotonic", "logits": [0, 0], "probabilities": [0, 1]}), "ascending"),
        (changed(mapping={"kind": "isotonic", "logits": [], "probabilities": []}), "0 logits"),
        (
            changed(mapping={"kind": "isotonic", "logits": [0, "1"], "probabilities": [0, 1]}),
            r"mapping.logits\[1\] is '1'",
        ),
    ],
)
def test_load_names_file_and_key(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "broken.json"
    path.write_text(content)
    with pytest.raises(ConfigurationError, match=message) as caught:
        Calibration.load(path)
    assert "broken.json" in str(caught.value)
    assert "lychee calibrate" in str(caught.value)


@pytest.mark.parametrize("content", [None, b"\xff\xfe{}", b" " * (2**24 + 1)], ids=["missing", "utf-16", "huge"])
def test_load_refuses_what_is_no_text_file(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"a\.json is not a calibration"):
        Calibration.load(tmp_path / "a.json")


def test_same_model_and_instruction_match() -> None:
    more = msgspec.structs.replace(IDENTITY, artifacts={**IDENTITY.artifacts, "vision_encoder": "d" * 64})
    assert make_calibration().mismatches(more, "判断文档是否回答了问题") == ()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_id": "clip"}, ("lychee-mini", "clip")),
        ({"revision": "def"}, ("revision", "abc", "def")),
        ({"precision": "fp32"}, ("precision", "w4", "fp32")),
        ({"artifacts": {"text_encoder": "e" * 64}}, ("text_encoder", "bbbb", "eeee")),
    ],
)
def test_another_model_is_told_in_words(changes: dict[str, Any], words: tuple[str, ...]) -> None:
    (difference,) = make_calibration().mismatches(
        msgspec.structs.replace(IDENTITY, **changes), "判断文档是否回答了问题"
    )
    assert all(word in difference for word in words)


@pytest.mark.parametrize(("instruction", "words"), [("Find duplicates", "Find duplicates"), (None, "no instruction")])
def test_another_instruction_is_told_in_words(instruction: str | None, words: str) -> None:
    (difference,) = make_calibration().mismatches(IDENTITY, instruction)
    assert "判断文档是否回答了问题" in difference
    assert words in difference


def test_platt_probability_is_the_logistic_curve() -> None:
    probability = make_calibration().probability([-1e9, 0.0, 1.0, 1e9])
    np.testing.assert_allclose(probability, [0, 1 / (1 + np.exp(0.25)), 1 / (1 + np.exp(-1.25)), 1], atol=1e-12)
    assert float(make_calibration().probability(0.0)) == pytest.approx(probability[1])


def test_isotonic_probability_is_level_beyond_its_knots() -> None:
    mapping = IsotonicMapping((-2.0, 0.0, 4.0), (0.1, 0.5, 0.9))
    np.testing.assert_allclose(mapping.probability([-5, -2, -1, 0, 2, 4, 99]), [0.1, 0.1, 0.3, 0.5, 0.7, 0.9, 0.9])


def test_mapping_with_falling_probabilities_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="never fall"):
        IsotonicMapping((0.0, 1.0), (0.5, 0.4))


def test_using_a_calibration_loads_no_statistics() -> None:
    code = (
        "import sys\nfrom lychee_client.calibration import Calibration\nimport lychee_evaluate.calibration.report\n"
        "print([name for name in ('sklearn', 'scipy', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_calibration_that_could_not_be_read_is_not_written(tmp_path: Path) -> None:
    for changes in ({"mapping": PlattMapping(float("nan"), 0.0)}, {"precision": float("nan")}):
        with pytest.raises(ConfigurationError, match=r"(slope|precision) is nan; expected `float`"):
            make_calibration(**changes).save(tmp_path / "calibration.json")
    assert not list(tmp_path.iterdir())


def test_path_may_be_a_string(tmp_path: Path) -> None:
    make_calibration().save(str(tmp_path / "calibration.json"))
    assert Calibration.load(str(tmp_path / "calibration.json")) == make_calibration()

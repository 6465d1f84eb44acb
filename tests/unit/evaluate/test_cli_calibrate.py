"""`lychee calibrate` on a server in this process."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from fakes.commands import evaluate
from fakes.dual_encoder import FakeTransport
from lychee_client import Calibration, ConnectionFailedError, LycheeClient, LycheeError
from lychee_client.transports.base import InferRequest
from lychee_evaluate.calibration.pair_scores import MAX_DOCUMENTS, score_pairs
from lychee_evaluate.calibration.pairs import Pair, read_pairs
from lychee_evaluate.cli import pair_scoring, requirement
from typer.testing import CliRunner, Result

Run = Callable[..., Result]
WORDS = ("猫", "car", "rocket", "flower", "wall", "coffee", "palace", "coin", "star", "camera", "moon", "tea")


@pytest.fixture
def run(transport: FakeTransport, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run the command in a folder of its own, each time on a fake transport that notes its requests in `transport`."""
    monkeypatch.chdir(tmp_path)

    def make_client(url: str | None) -> LycheeClient:
        own = FakeTransport()
        own.live, own.requests = transport.live, transport.requests
        return LycheeClient(url, transport=own)

    monkeypatch.setattr(pair_scoring, "LycheeClient", make_client)
    return lambda *arguments: CliRunner().invoke(evaluate, ["calibrate", *(str(argument) for argument in arguments)])


def make_rows(queries: int = 12) -> list[list[str]]:
    """Return rows of which the fake server scores the relevant ones highest: they repeat their query."""
    rows = []
    for number, word in enumerate(WORDS[:queries]):
        other = WORDS[(number + 5) % len(WORDS)]
        rows += [
            [word, word, "", "1"],
            [word, f"{word} {word}", "", "1"],
            [word, other * 3, "", "0"],
            [word, f"{other} 1234", "", "0"],
        ]
    return rows


def write(path: Path, rows: list[list[str]]) -> Path:
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file).writerows([["query", "text", "image", "relevant"], *rows])
    return path


def test_json_is_one_object_and_both_files_are_written(run: Run, tmp_path: Path) -> None:
    path = write(tmp_path / "pairs.csv", make_rows())
    result = run(path, "--json", "--bootstrap", "100", "--output", "标定.json", "--target", "precision>=0.5")
    assert result.exit_code == 0, result.stderr
    data = json.loads(result.stdout)
    assert (data["output"], data["plot"], data["skipped"]) == ("标定.json", "标定.png", [])
    calibration = Calibration.load(tmp_path / "标定.json")
    assert calibration.to_json() == data["calibration"]
    assert calibration.model.model_id == "fake"
    assert (calibration.pairs, calibration.positives, calibration.queries) == (48, 24, 12)
    with PIL.Image.open(tmp_path / "标定.png") as picture:
        assert picture.size == (1200, 800)
    assert {row["threshold"] for row in data["table"]} >= {0.55, 0.75, calibration.threshold}
    assert set(data["reliability"]) == {
        f"expected_calibration_error_{part}" for part in ("before", "after", "by_chance")
    }


def test_calibration_is_a_policy_that_decides_as_reported(run: Run, tmp_path: Path, client: LycheeClient) -> None:
    assert run(write(tmp_path / "pairs.csv", make_rows()), "--bootstrap", "100").exit_code == 0
    calibration = Calibration.load(tmp_path / "calibration.json")
    accepted = relevant = 0
    for query, text, _, label in make_rows():
        response = client.rerank(query, [text], policy=calibration)
        assert response.warnings == ()
        accepted += response.results[0].decision == "accept"
        relevant += response.results[0].decision == "accept" and label == "1"
    assert relevant / accepted == pytest.approx(calibration.precision)
    assert relevant / 24 == pytest.approx(calibration.recall)


def test_report_for_people_names_the_figures(run: Run, tmp_path: Path) -> None:
    result = run(write(tmp_path / "pairs.csv", make_rows()), "--bootstrap", "100", "--review-band")
    words = " ".join(result.stdout.split())
    for expected in (
        "<- chosen",
        "95% interval",
        "whole queries",
        "half as wide",
        "cross-validated",
        "calibration.png",
    ):
        assert expected in words
    assert "48 pairs; 50 or more are better" in result.stderr
    calibration = Calibration.load(tmp_path / "calibration.json")
    assert calibration.review_threshold <= calibration.threshold


def test_same_seed_gives_the_same_calibration(run: Run, tmp_path: Path) -> None:
    path = write(tmp_path / "pairs.csv", make_rows())
    outputs = []
    for _ in range(2):
        result = run(path, "--json", "--bootstrap", "100", "--seed", "7", "--mapping", "isotonic", "--force")
        outputs.append(json.loads(result.stdout))
        outputs[-1]["calibration"].pop("created_at")
    assert outputs[0] == outputs[1]
    assert outputs[0]["calibration"]["mapping"]["kind"] == "isotonic"


def test_rows_that_cannot_be_used_cost_only_themselves(run: Run, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    bad = [["猫", "", "broken.jpg", "1"], ["猫", "", "gone.jpg", "1"], ["猫", "x", "", ""], ["猫", "猫", "", "1"]]
    result = run(write(tmp_path / "pairs.csv", make_rows() + bad), "--json", "--bootstrap", "100")
    assert result.exit_code == 0
    data = json.loads(result.stdout)
    assert data["calibration"]["pairs"] == 48
    assert sorted(skip["row"] for skip in data["skipped"]) == [50, 51, 52, 53]
    for expected in ("row 50 skipped", "row 51 skipped: image 'gone.jpg'", "relevant is empty", "same pair as row 2"):
        assert expected in result.stderr, result.stderr


def test_many_reasons_are_cut_short(run: Run, tmp_path: Path) -> None:
    bad = [["q", f"text {number}", "", f"label {number}"] for number in range(30)]
    result = run(write(tmp_path / "pairs.csv", make_rows() + bad), "--bootstrap", "100")
    assert result.exit_code == 0
    assert "10 more rows skipped" in result.stderr


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (make_rows(4), "16 usable pairs are too few"),
        ([[*row[:3], "1"] for row in make_rows()], "0 of 48 usable pairs have the label 0"),
        ([], "0 usable pairs"),
    ],
)
def test_too_little_evidence_is_exit_code_1_and_sends_nothing(
    run: Run, tmp_path: Path, transport: FakeTransport, rows: list[list[str]], message: str
) -> None:
    result = run(write(tmp_path / "pairs.csv", rows))
    assert (result.exit_code, result.stdout) == (1, "")
    assert message in result.stderr
    assert transport.requests == []
    assert [path.name for path in tmp_path.iterdir()] == ["pairs.csv"]


def test_unreachable_target_is_exit_code_1_and_writes_nothing(run: Run, tmp_path: Path) -> None:
    rows = [[query, text, image, str(1 - int(label))] for query, text, image, label in make_rows()]
    result = run(write(tmp_path / "pairs.csv", rows), "--target", "precision>=0.99")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "precision>=0.99 cannot be reached on these pairs: the best precision is 0." in result.stderr
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ""] == ["pairs.csv"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target", "accuracy"], "expected 'precision>=P'"),
        (["--bootstrap", "5"], "bootstrap is 5"),
        (["--mapping", "beta"], "platt"),
        (["--output", "missing/c.json"], "does not exist"),
        (["--output", "c.json", "--plot", "c.json"], "cannot both be written"),
        (["--output", "pairs.csv"], "exists already"),
        (["--output", "c.json", "--plot", "pairs.csv"], "exists already"),
    ],
)
def test_bad_options_are_exit_code_2_before_anything_is_sent(
    run: Run, tmp_path: Path, transport: FakeTransport, arguments: list[str], message: str
) -> None:
    path = write(tmp_path / "pairs.csv", make_rows())
    before = path.read_bytes()
    result = run(path, *arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())
    assert transport.requests == []
    assert path.read_bytes() == before


def test_missing_package_for_the_picture_is_told_before_anything_is_sent(
    run: Run, transport: FakeTransport, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(requirement, "find_spec", lambda name: None)
    result = run(write(tmp_path / "pairs.csv", make_rows()), "--output", tmp_path / "c.json")
    assert result.exit_code == 2
    assert "matplotlib is not installed" in result.stderr
    assert "pip install 'lychee-rerank-evaluate[cli]'" in result.stderr
    assert not transport.requests


def test_server_that_fails_is_exit_code_1_and_writes_nothing(
    run: Run, tmp_path: Path, transport: FakeTransport
) -> None:
    transport.live = False
    result = run(write(tmp_path / "pairs.csv", make_rows()))
    assert result.exit_code == 1
    assert "the fake server is gone" in result.stderr
    assert not (tmp_path / "calibration.json").exists()


def test_instructions_are_calibrated_one_at_a_time(run: Run, tmp_path: Path) -> None:
    lines = [
        {"query": query, "text": text, "relevant": int(label), "instruction": instruction}
        for instruction in ("A", "B")
        for query, text, _, label in make_rows()
    ]
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in lines), encoding="utf-8")
    result = run(path)
    assert result.exit_code == 2
    assert "2 different instructions" in result.stderr
    result = run(path, "--instruction", "B", "--json", "--bootstrap", "100")
    assert result.exit_code == 0
    data = json.loads(result.stdout)
    assert [skip["row"] for skip in data["skipped"]] == list(range(1, 49))
    assert any("instruction" in warning for warning in data["warnings"])  # the fake model reads none


def test_every_pair_is_scored_once_and_every_query_encoded_once(transport: FakeTransport, client: LycheeClient) -> None:
    pairs = [Pair(index, f"q{index % 3}", None, f"text {index}", None, None, True) for index in range(30)]
    done: list[int] = []
    scored = score_pairs(client, pairs, on_progress=done.append)
    sent = list(transport.requests)
    assert scored.pairs == tuple(pairs)
    assert scored.queries.tolist() == [index % 3 for index in range(30)]
    assert sum(done) == 30
    expected = [client.score(f"q{index % 3}", f"text {index}") for index in range(30)]
    np.testing.assert_allclose(scored.scores, expected, atol=1e-6)
    np.testing.assert_allclose(1 / (1 + np.exp(-scored.logits)), expected, atol=1e-5)
    encoded = [
        request for request in sent if isinstance(request, InferRequest) and request.model_name == "text_encoder"
    ]
    assert sum(request.rows for request in encoded) == 3 + 30


def test_large_groups_are_split(client: LycheeClient) -> None:
    pairs = [Pair(index, "q", None, f"text {index}", None, None, True) for index in range(2 * MAX_DOCUMENTS + 1)]
    done: list[int] = []
    assert len(score_pairs(client, pairs, on_progress=done.append).pairs) == len(pairs)
    assert done == [MAX_DOCUMENTS, MAX_DOCUMENTS, 1]


def test_query_that_cannot_be_used_costs_its_pairs(client: LycheeClient, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    pairs = [
        Pair(2, None, tmp_path / "broken.jpg", "a", None),
        Pair(3, "q", None, "word " * 200, None),
        Pair(4, None, tmp_path / "broken.jpg", "b", None),
    ]
    scored = score_pairs(client, pairs)
    assert [skip.row for skip in scored.skipped] == [2, 4]
    assert "its query cannot be used" in scored.skipped[0].reason
    assert (scored.pairs, scored.truncated) == ((pairs[1],), (3,))


def test_example_pairs_are_all_usable(root: Path) -> None:
    sheet = read_pairs(root / "examples" / "calibration" / "pairs.csv", labelled=True)
    items = read_pairs(root / "examples" / "calibration" / "items.jsonl", labelled=False)
    assert (len(sheet.pairs), sum(pair.relevant is True for pair in sheet.pairs), sheet.skipped) == (112, 46, ())
    assert (len(items.pairs), len({pair.query_key for pair in items.pairs}), items.skipped) == (12 * 27, 12, ())


def test_no_pairs_need_no_server(client: LycheeClient, transport: FakeTransport) -> None:
    scored = score_pairs(client, [])
    assert (scored.pairs, scored.scores.shape, scored.model, transport.requests) == ((), (0,), None, [])


def test_trouble_with_the_server_ends_the_scoring() -> None:
    def fail(request: object) -> None:
        if isinstance(request, InferRequest) and request.model_name == "text_encoder":
            raise ConnectionFailedError("gone")

    with (
        LycheeClient(transport=FakeTransport(fail), timeout_s=2) as client,
        pytest.raises(LycheeError),
    ):
        score_pairs(client, [Pair(2, "q", None, "a", None)])

"""A calibration of the page, on a server in this process."""

from __future__ import annotations

import asyncio
import csv
import io
import zipfile
from collections.abc import Callable
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import PIL.Image
import pytest
from fakes.commands import evaluate
from fakes.dual_encoder import FakeTransport
from lychee_client import Calibration, ConnectionFailedError, InvalidInputError, LycheeClient
from lychee_client.transports.base import InferRequest, Request
from lychee_evaluate.calibration import report
from lychee_evaluate.calibration.evidence import Doubt
from lychee_evaluate.calibration.pair_scores import SCORE_RESOLUTION, take_scores
from lychee_evaluate.calibration.pairs import Pair
from lychee_evaluate.cli import pair_scoring
from lychee_server import examples
from lychee_server.gateway.limits import TooBusyError
from lychee_server.gateway.service import Service
from lychee_server.gateway.settings import GatewaySettings
from lychee_server.web.calibration_job import CalibrationOutcome, Job, JobError, Progress, Upload, run_job
from lychee_server.web.problems import PageError
from typer.testing import CliRunner

QUERIES = ("猫", "car", "rocket", "flower", "wall", "coffee", "palace", "coin")
COLUMNS = ("query", "text", "image", "relevant")


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have temporary folders made where the test sees them; return that folder."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def make_rows() -> list[list[str]]:
    """Return rows of which the fake server scores the relevant ones highest, with an image in each query."""
    rows = []
    for number, query in enumerate(QUERIES):
        other = QUERIES[(number + 3) % len(QUERIES)]
        rows += [[query, query, "", "1"], [query, f"{query} {query}", "", "1"], [query, other * 3, "", "0"]]
        rows.append([query, f"{other} 1234", f"photos/{number}.png", "0"])
    return rows


def make_table(rows: list[list[str]], columns: tuple[str, ...] = COLUMNS) -> bytes:
    file = io.StringIO()
    csv.writer(file).writerows([columns, *rows])
    return file.getvalue().encode("utf-8-sig")


def make_photo(number: int) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.new("RGB", (30, 20), (20 * number, 100, 200 - 20 * number)).save(buffer, "PNG")
    return buffer.getvalue()


def upload_zip() -> Upload:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("pairs.csv", make_table(make_rows()))
        for number in range(len(QUERIES)):
            archive.writestr(f"photos/{number}.png", make_photo(number))
    return Upload("pairs.zip", buffer.getvalue())


def test_outcome_says_what_was_found_out_about_the_table() -> None:
    table = make_table([[*row[:2], "", row[3]] for row in make_rows()]).decode("utf-8-sig")
    job = Job(Upload("pairs.csv", table.encode("utf-16")), "f1")
    assert [note.kind for note in carry_out(job)[1].notes] == ["encoding_read"]


def carry_out(
    job: Job,
    transport: FakeTransport | None = None,
    change: Callable[[Service], None] = lambda service: None,
    **settings: Any,
) -> tuple[list[Progress], CalibrationOutcome]:
    """Return what a job yields."""

    async def collect() -> tuple[list[Progress], CalibrationOutcome]:
        service = Service(GatewaySettings(**settings), transport=transport or FakeTransport())
        await service.start()
        await service.health.require(5.0)
        change(service)
        progress: list[Progress] = []
        try:
            async for step in run_job(service, job):
                if isinstance(step, CalibrationOutcome):
                    return progress, step
                progress.append(step)
            raise AssertionError("the job ended without an outcome")
        finally:
            await service.aclose()

    return asyncio.run(collect())


def stop_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    moment = datetime(2026, 11, 23, 4, 5, 6, tzinfo=UTC)
    monkeypatch.setattr(report, "datetime", SimpleNamespace(now=lambda zone: moment))


def test_file_equals_that_of_the_command_byte_for_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_clock(monkeypatch)
    folder = tmp_path / "command"
    (folder / "photos").mkdir(parents=True)
    (folder / "pairs.csv").write_bytes(make_table(make_rows()))
    for number in range(len(QUERIES)):
        (folder / "photos" / f"{number}.png").write_bytes(make_photo(number))
    monkeypatch.setattr(pair_scoring, "LycheeClient", lambda url: LycheeClient(url, transport=FakeTransport()))
    arguments = ["calibrate", str(folder / "pairs.csv"), "--target", "recall>=0.9", "--output", str(folder / "c.json")]
    result = CliRunner().invoke(evaluate, arguments)
    assert result.exit_code == 0, result.stderr

    _, outcome = carry_out(Job(upload_zip(), "recall>=0.9"))
    assert outcome.calibration == (folder / "c.json").read_bytes()
    assert outcome.skipped == ()
    assert Calibration.load(folder / "c.json").pairs == 32


def test_progress_counts_every_pair_and_nothing_stays_on_the_disk(own_folder: Path) -> None:
    progress, _ = carry_out(Job(upload_zip(), "f1"))
    assert progress[0] == Progress(0, 32)
    assert progress[-1] == Progress(32, 32)
    assert [step.done for step in progress] == sorted(step.done for step in progress)
    assert list(own_folder.iterdir()) == []


def test_pairs_are_scored_in_the_bulk_lane_within_the_limit_of_documents() -> None:
    transport = FakeTransport()
    calls: list[tuple[int, Any]] = []

    def watch(service: Service) -> None:
        rerank = service.rerank

        async def note(query: Any, documents: Any, options: Any, **rest: Any) -> Any:
            calls.append((len(documents), options["priority"]))
            return await rerank(query, documents, options, **rest)

        service.rerank = note  # type: ignore[method-assign]

    carry_out(Job(upload_zip(), "f1"), transport, watch, max_documents=3)
    assert calls == [(3, "bulk"), (1, "bulk")] * len(QUERIES)


def test_busy_gateway_is_asked_again() -> None:
    refusals = [TooBusyError("busy", retry_after_s=0)] * 3

    def refuse(service: Service) -> None:
        rerank = service.rerank

        async def sometimes(*arguments: Any, **rest: Any) -> Any:
            if refusals:
                raise refusals.pop()
            return await rerank(*arguments, **rest)

        service.rerank = sometimes  # type: ignore[method-assign]

    _, outcome = carry_out(Job(upload_zip(), "f1"), change=refuse)
    assert outcome.report.calibration.pairs == 32


def test_gateway_that_stays_busy_ends_the_job() -> None:
    def refuse(service: Service) -> None:
        async def never(*arguments: Any, **rest: Any) -> Any:
            raise TooBusyError("busy", retry_after_s=0)

        service.rerank = never  # type: ignore[method-assign]

    with pytest.raises(TooBusyError):
        carry_out(Job(upload_zip(), "f1"), change=refuse)


def test_cancelled_job_sends_no_more_and_leaves_nothing(own_folder: Path) -> None:
    transport = FakeTransport()

    async def cancel() -> int:
        service = Service(GatewaySettings(), transport=transport)
        await service.start()
        await service.health.require(5.0)
        async with aclosing(run_job(service, Job(upload_zip(), "f1"))) as steps:
            async for step in steps:
                if isinstance(step, Progress) and step.done:
                    break
        sent = len(transport.requests)
        await asyncio.sleep(0)
        assert len(transport.requests) == sent
        await service.aclose()
        return sum(isinstance(request, InferRequest) for request in transport.requests)

    assert asyncio.run(cancel()) < 32
    assert list(own_folder.iterdir()) == []


def test_rows_that_cannot_be_used_are_told_with_their_numbers() -> None:
    rows = [*make_rows(), ["猫", "x", "gone.png", "1"], ["猫", "x", "", "maybe"]]
    photos = {f"photos/{number}.png": make_photo(number) for number in range(len(QUERIES) - 1)}
    photos[f"photos/{len(QUERIES) - 1}.png"] = b"no image"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("pairs.csv", make_table(rows))
        for name, content in photos.items():
            archive.writestr(name, content)
    _, outcome = carry_out(Job(Upload("p.zip", buffer.getvalue()), "f1"))
    reasons = {skip.row: skip.reason for skip in outcome.skipped}
    assert set(reasons) == {33, 34, 35}
    assert "not a readable image" in reasons[33]
    assert "'gone.png' is not in the zip" in reasons[34]
    assert "relevant is 'maybe'" in reasons[35]
    assert outcome.report.calibration.pairs == 31


@pytest.mark.parametrize(
    ("keep", "kind"),
    [
        (lambda row: row[0] in QUERIES[:2], "too_few_pairs"),
        (lambda row: row[3] == "1" or row[0] in QUERIES[:2], "too_few_of_label"),
    ],
)
def test_shortage_is_told_before_anything_is_scored(keep: Callable[[list[str]], bool], kind: str) -> None:
    rows = [[*row[:2], "", row[3]] for row in make_rows() if keep(row)] + [["q", "", "../../etc/passwd", "1"]]
    if kind == "too_few_of_label":
        rows = [row for row in rows if row[3] == "1"] + [["q", f"text {n}", "", "1"] for n in range(9)] + rows[:0]
    transport = FakeTransport()
    with pytest.raises(JobError) as caught:
        carry_out(Job(Upload("p.csv", make_table(rows)), "f1"), transport)
    assert caught.value.kind == kind
    assert "expected at least" in caught.value.message
    assert not any(
        isinstance(request, InferRequest) and "rerank" in request.model_name for request in transport.requests
    )
    assert "../../etc/passwd" in caught.value.skipped[-1].reason


def test_target_and_instructions_are_checked() -> None:
    rows = [[*row[:2], row[3], "A" if number % 2 else "B"] for number, row in enumerate(make_rows())]
    table = Upload("p.csv", make_table(rows, ("query", "text", "relevant", "instruction")))
    for job, kind in (
        (Job(table, "precision>=2"), "target"),
        (Job(table, ""), "target"),
        (Job(table, "f1"), "instructions"),
        (Job(table, "f1", "C"), "too_few_pairs"),
    ):
        with pytest.raises(PageError) as caught:
            carry_out(job)
        assert caught.value.kind == kind


def test_missing_example_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examples, "FOLDERS", ())
    with pytest.raises(PageError, match="not installed here"):
        carry_out(Job(None, "f1"))


def test_unreachable_target_says_what_can_be_reached() -> None:
    rows = [[*row[:2], "", str(1 - int(row[3]))] for row in make_rows()]
    with pytest.raises(InvalidInputError, match="precision>=1 cannot be reached"):
        carry_out(Job(Upload("p.csv", make_table(rows)), "precision>=1"))


def test_lost_server_ends_the_job() -> None:
    def fail(request: Request) -> None:
        is_call = isinstance(request, InferRequest) and request.request_id is not None  # the watch has no ids
        if is_call and request.model_name == "text_encoder":
            raise ConnectionFailedError("gone")

    with pytest.raises(ConnectionFailedError):
        carry_out(Job(upload_zip(), "f1"), FakeTransport(fail), timeout_s=1.0)


def test_pairs_that_are_scored_already_need_no_scoring() -> None:
    rng = np.random.default_rng(0)
    rows = [
        [f"q{number % 10}", f"text {number}", str(number % 2), f"{rng.uniform(0.4 * (number % 2), 0.6):.6f}"]
        for number in range(60)
    ]
    rows[3][3], rows[4][3], rows[5][3] = "1.5", "", "nan"
    columns = ("query", "text", "relevant", "relevance_score")
    transport = FakeTransport()
    table = Upload("p.csv", make_table(rows, columns))
    progress, outcome = carry_out(Job(table, "f1", use_scores=True), transport)
    assert progress == [Progress(0, 60)]
    assert not any(
        isinstance(request, InferRequest) and "rerank" in request.model_name for request in transport.requests
    )
    calibration = outcome.report.calibration
    assert (calibration.pairs, calibration.model.model_id, calibration.instruction) == (57, "fake", None)
    assert {skip.row for skip in outcome.skipped} == {5, 6, 7}
    assert outcome.report.doubts[0].kind == "scores_from_table"


def test_logits_of_given_scores_are_finite() -> None:
    identity = LycheeClient(transport=FakeTransport()).manifest().identity
    pairs = [Pair(row, "q", None, str(row), None, None, True, score) for row, score in enumerate((0.0, 0.5, 1.0))]
    scored = take_scores(pairs, identity, None)
    assert scored.logits[1] == 0
    assert scored.logits[2] == -scored.logits[0] == pytest.approx(-np.log(SCORE_RESOLUTION), abs=1e-6)


def test_example_pairs_can_be_calibrated() -> None:
    _, outcome = carry_out(Job(None, "f1"))
    assert (outcome.report.calibration.pairs, outcome.skipped) == (112, ())


def test_curve_says_what_the_report_says() -> None:
    _, outcome = carry_out(Job(None, "f1"))
    curve, calibration = outcome.curve, outcome.report.calibration
    assert list(curve.thresholds) == sorted(set(curve.thresholds))
    at = next(index for index, threshold in enumerate(curve.thresholds) if threshold >= calibration.threshold)
    assert (curve.precision[at], curve.recall[at]) == pytest.approx((calibration.precision, calibration.recall))
    assert (curve.f1[at], curve.accepted[at]) == pytest.approx((calibration.f1, outcome.report.accepted))
    assert curve.recall[0] == 1
    assert sum(curve.relevant) == calibration.positives
    assert sum(curve.relevant) + sum(curve.irrelevant) == calibration.pairs


def test_doubts_read_as_before() -> None:
    doubt = Doubt("few_pairs", {"pairs": 30, "advised": 50})
    assert str(doubt) == "the calibration rests on 30 pairs; 50 or more are better"

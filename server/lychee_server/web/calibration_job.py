"""One calibration of the page: from an upload to a calibration file, step by step."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from lychee_client import ConfigurationError, InvalidInputError, LycheeError, RerankOptions, RerankResponse
from lychee_client.types import Input
from lychee_evaluate.calibration.curve import Curve, trace_curve
from lychee_evaluate.calibration.evidence import Doubt, find_shortage
from lychee_evaluate.calibration.pair_scores import MAX_DOCUMENTS, PairScores, PairScoring, take_scores
from lychee_evaluate.calibration.pairs import Pair, PairSheet, SkippedRow, read_pairs, select_instruction
from lychee_evaluate.calibration.report import CalibrationReport, make_report
from lychee_evaluate.calibration.threshold_search import Target, parse_target
from lychee_evaluate.tables.message import Message

from lychee_server.examples import find_example
from lychee_server.gateway.limits import TooBusyError
from lychee_server.gateway.service import Service
from lychee_server.web.pair_upload import read_upload
from lychee_server.web.problems import PageError

MAX_ATTEMPTS: Final = 10
POLICY: Final = "balanced"  # the decisions do not matter, but a policy that warns would


@dataclass(frozen=True, slots=True)
class Upload:
    """A file as a user sent it; its name's suffix says what it is."""

    name: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Job:
    """What a user asks for.

    Attributes:
        upload: The labelled pairs; None takes the example.
        target: The target, as `lychee calibrate --target` takes it.
        instruction: The instruction, as `--instruction` takes it; None or blank: that of the pairs.
        use_scores: Whether to take the pairs' column `relevance_score` for scores of the served model.
    """

    upload: Upload | None
    target: str
    instruction: str | None = None
    use_scores: bool = False


@dataclass(frozen=True, slots=True)
class Progress:
    """How many pairs are scored."""

    done: int
    total: int


@dataclass(frozen=True, slots=True)
class CalibrationOutcome:
    """What a job ends with.

    Attributes:
        report: All figures.
        skipped: Rows that do not count, by row.
        calibration: The content of the calibration file.
        curve: What every threshold does.
        notes: What was found out about the table.
    """

    report: CalibrationReport
    skipped: tuple[SkippedRow, ...]
    calibration: bytes
    curve: Curve
    notes: tuple[Message, ...] = ()


class JobError(PageError):
    """No threshold can be found on these pairs.

    Attributes:
        doubt: Why.
        skipped: Rows that do not count, which may be why.
    """

    def __init__(self, doubt: Doubt, skipped: Sequence[SkippedRow]) -> None:
        super().__init__(doubt.kind, **doubt.values)
        self.doubt = doubt
        self.skipped = tuple(skipped)

    @property
    def message(self) -> str:
        """English, for people."""
        return str(self.doubt)


async def run_job(service: Service, job: Job) -> AsyncGenerator[Progress | CalibrationOutcome, None]:
    """Yield the progress, and at the end the outcome. Closing the iterator ends the job.

    Raises:
        PageError: The upload or an option cannot be used.
        JobError: The pairs are too few, of too few queries, or one class has too few.
        LycheeError: The table cannot be read, no threshold reaches the target, or the server fails.
    """
    target = _check(job)
    # A thread that still writes when the job is cancelled must not keep the rest from being removed.
    with tempfile.TemporaryDirectory(prefix="lychee-pairs-", ignore_cleanup_errors=True) as folder:
        sheet = await asyncio.to_thread(_read, job.upload, Path(folder))
        pairs, left_out, instruction = _select(sheet, job.instruction)
        skipped = [*sheet.skipped, *left_out]
        _require_evidence(pairs, skipped)
        yield Progress(0, len(pairs))
        if job.use_scores:
            scored = await _take_scores(service, pairs, instruction)
        else:
            scoring = PairScoring(pairs, min(MAX_DOCUMENTS, service.settings.max_documents))
            async for done in _score(service, scoring, instruction):
                yield Progress(done, len(pairs))
            scored = scoring.result()
        skipped = sorted([*skipped, *scored.skipped], key=lambda skip: skip.row)
        _require_evidence(scored.pairs, skipped)
        report = await asyncio.to_thread(make_report, scored, target)
    if job.use_scores:
        report = replace(report, doubts=(Doubt("scores_from_table", {}), *report.doubts))
    calibration = report.calibration.to_bytes()
    yield CalibrationOutcome(report, tuple(skipped), calibration, trace_curve(scored), sheet.notes)


def _check(job: Job) -> Target:
    try:
        return parse_target(job.target)
    except ConfigurationError as error:
        raise PageError("target") from error


def _read(upload: Upload | None, folder: Path) -> PairSheet:
    if upload is not None:
        return read_upload(upload.name, upload.data, folder)
    example = find_example("calibration", "pairs.csv")
    if example is None:
        raise PageError("no_example")
    return read_pairs(example, labelled=True)


def _select(sheet: PairSheet, wanted: str | None) -> tuple[list[Pair], list[SkippedRow], str | None]:
    instruction = (wanted or "").strip() or None
    found = {pair.instruction for pair in sheet.pairs}
    if instruction is None and len(found) > 1:
        raise PageError("instructions", count=len(found))
    return select_instruction(sheet.pairs, instruction)


def _require_evidence(pairs: Sequence[Pair], skipped: Sequence[SkippedRow]) -> None:
    shortage = find_shortage(pairs)
    if shortage is not None:
        raise JobError(shortage, skipped)


async def _take_scores(service: Service, pairs: Sequence[Pair], instruction: str | None) -> PairScores:
    manifest = await service.manifest()
    if manifest.instruction is None:
        instruction = None
    elif instruction is None:
        instruction = manifest.instruction.default
    return take_scores(pairs, manifest.identity, instruction)


async def _score(service: Service, scoring: PairScoring, instruction: str | None) -> AsyncGenerator[int, None]:
    """Score query by query; yield how many pairs are done."""
    done = 0
    for call, (query, documents) in enumerate(scoring.calls()):
        try:
            done += scoring.add(call, await _rerank(service, query, documents, instruction))
        except InvalidInputError as error:
            done += scoring.fail(call, error)
        yield done


async def _rerank(
    service: Service, query: Input, documents: Sequence[Input], instruction: str | None
) -> RerankResponse:
    """Score one query's documents in the bulk lane; where the gateway is busy, wait and try again.

    Raises:
        LycheeError: See Service.rerank.
    """
    options = RerankOptions(instruction=instruction, priority="bulk", policy=POLICY)
    busy: LycheeError | None = None
    for _ in range(MAX_ATTEMPTS):
        try:
            return (await service.rerank(query, documents, options)).response
        except TooBusyError as error:
            busy = error
            await asyncio.sleep(error.retry_after_s)
    assert busy is not None
    raise busy

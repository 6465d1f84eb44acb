"""`POST /v1/calibrations`: labelled pairs to a threshold, told as it goes in lines of JSON."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import asdict
from typing import Annotated, Any, Final

from fastapi import FastAPI, Query, Request
from lychee_client import LycheeError
from lychee_evaluate.calibration.pairs import SkippedRow, group_skipped
from lychee_evaluate.tables.message import TableError
from starlette.responses import StreamingResponse

from lychee_server.gateway.answer_schemas import ErrorAnswer
from lychee_server.gateway.errors import RequestValueError, find_fault
from lychee_server.gateway.json_body import parse_json, render_json
from lychee_server.gateway.limits import TooBusyError
from lychee_server.gateway.model_services import ModelServices
from lychee_server.gateway.request_schemas import ModelQuery
from lychee_server.gateway.service import Service
from lychee_server.web.calibration_job import CalibrationOutcome, Job, JobError, Progress, Upload, run_job
from lychee_server.web.problems import PageError

MAX_JOBS: Final = 2
RETRY_AFTER_S: Final = 10
MAX_REASONS: Final = 50
LINES: Final = "application/x-ndjson"
_DESCRIPTION: Final = {
    200: {
        "content": {LINES: {"schema": {"type": "string"}}},
        "description": "Lines of JSON: `progress` with `done` and `total`, and last `outcome` or `problem`.",
    },
    400: {"model": ErrorAnswer, "description": "Neither a body nor example=true was sent, or the JSON is no pairs."},
    429: {"model": ErrorAnswer, "description": "Two calibrations run already; see the header Retry-After."},
}
_BODY: Final = {
    "requestBody": {
        "content": {
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            "application/json": {
                "schema": {"type": "object", "properties": {"pairs": {"type": "array", "items": {"type": "object"}}}}
            },
        }
    }
}


def install(app: FastAPI, services: ModelServices) -> None:
    """Add the route to an app."""
    jobs = _Jobs()

    @app.post(
        "/v1/calibrations",
        tags=["calibration"],
        summary="Find a threshold on labelled pairs",
        response_class=StreamingResponse,
        responses=_DESCRIPTION,  # type: ignore[arg-type]
        openapi_extra=_BODY,
    )
    async def calibrate(
        request: Request,
        target: Annotated[str, Query(description="precision>=P, recall>=R or f1.")] = "f1",
        instruction: Annotated[str | None, Query(description="Use the pairs with this one, or without one.")] = None,
        use_scores: Annotated[bool, Query(description="Take the column relevance_score for scores.")] = False,
        name: Annotated[str, Query(description="Of the file; its suffix says what the body is.")] = "pairs.csv",
        example: Annotated[bool, Query(description="Take the example pairs; without a body.")] = False,
        model: ModelQuery = None,
    ) -> StreamingResponse:
        """Score labelled pairs, and find the threshold for a target with its interval and curve.

        The body is a table (as `lychee calibrate` reads it), a zip with a table and its images, or JSON. Whoever hangs
        up ends the calculation.
        """
        service = await services.choose(model)
        jobs.check()
        upload = None if example else _read_upload(name, request.headers.get("content-type"), await request.body())
        return StreamingResponse(jobs.run(service, Job(upload, target, instruction, use_scores)), media_type=LINES)


class _Jobs:
    """The calibrations that run; more than MAX_JOBS at the same time would leave nothing for ranking."""

    def __init__(self) -> None:
        self._running = 0

    def check(self) -> None:
        if self._running >= MAX_JOBS:
            raise TooBusyError(
                f"{MAX_JOBS} calibrations run already; try again in {RETRY_AFTER_S} s", retry_after_s=RETRY_AFTER_S
            )

    async def run(self, service: Service, job: Job) -> AsyncIterator[bytes]:
        """Yield lines; closing the iterator ends the job."""
        self._running += 1
        try:
            async with aclosing(_tell(service, job)) as lines:
                async for line in lines:
                    yield json.dumps(line, ensure_ascii=False).encode() + b"\n"
        finally:
            self._running -= 1


async def _tell(service: Service, job: Job) -> AsyncGenerator[dict[str, Any], None]:
    try:
        async with aclosing(run_job(service, job)) as steps:
            async for step in steps:
                if isinstance(step, Progress):
                    yield {"event": "progress", **asdict(step)}
                else:
                    yield _describe(step)
    except PageError as error:
        skipped = error.skipped if isinstance(error, JobError) else ()
        yield _problem(error.kind, error.values, error.message, skipped)
    except TableError as error:
        yield {**_problem("table", {}, str(error)), "wording": error.message.to_json()["message"]}
    except LycheeError as error:
        fault = find_fault(error)
        yield _problem(fault.kind, {}, str(error) if fault.message is None else fault.message)


def _describe(outcome: CalibrationOutcome) -> dict[str, Any]:
    report = outcome.report
    return {
        "event": "outcome",
        **report.to_json(),
        "doubts": [{"kind": doubt.kind, "values": doubt.values, "message": str(doubt)} for doubt in report.doubts],
        "notes": list(report.notes),
        "table_notes": [note.to_json() for note in outcome.notes],
        "curve": asdict(outcome.curve),
        "skipped": _group(outcome.skipped),
        "calibration": json.loads(outcome.calibration),
    }


def _problem(
    kind: str, values: Mapping[str, object], message: str, skipped: tuple[SkippedRow, ...] = ()
) -> dict[str, Any]:
    return {"event": "problem", "kind": kind, "values": values, "message": message, "skipped": _group(skipped)}


def _group(skipped: tuple[SkippedRow, ...]) -> dict[str, Any]:
    """Return how many rows do not count, and the first reasons with the numbers of their rows."""
    groups = group_skipped(skipped)
    wordings = {skip.reason: skip.message.to_json()["message"] for skip in skipped}
    shown = list(groups.items())[:MAX_REASONS]
    reasons = [{"reason": reason, "wording": wordings[reason], "rows": rows} for reason, rows in shown]
    return {"rows": len(skipped), "reasons": reasons, "further": max(0, len(groups) - MAX_REASONS)}


def _read_upload(name: str, content_type: str | None, body: bytes) -> Upload:
    if not body:
        raise _refusal(PageError("no_file"), "body")
    if (content_type or "").partition(";")[0].strip().lower() != "application/json":
        return Upload(name, body)
    try:
        pairs = parse_json(body)["pairs"]
        rows = [_to_row(pair) for pair in pairs]
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise _refusal(PageError("pairs_shape"), "pairs") from error
    return Upload("pairs.jsonl", b"\n".join(render_json(row) for row in rows))


def _to_row(pair: Mapping[str, Any]) -> dict[str, Any]:
    """Return a pair, whose query and document may be objects as those of a call are, as a row of a table."""
    parts: dict[str, Any] = {}
    for name, (text, image) in {"query": ("query", "query_image"), "document": ("text", "image")}.items():
        value = pair.get(name)
        if isinstance(value, Mapping):
            parts |= {text: value.get("text"), image: value.get("image")}
        elif value is not None:
            parts[text] = value
    return {**{name: value for name, value in pair.items() if name not in ("query", "document")}, **parts}


def _refusal(error: PageError, param: str) -> RequestValueError:
    return RequestValueError(error.message, param, kind=error.kind)

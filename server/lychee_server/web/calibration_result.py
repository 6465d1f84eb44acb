"""One calibration as HTML, in both languages."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any, Final

from lychee_evaluate.calibration.pairs import SkippedRow, group_skipped, list_rows
from lychee_evaluate.calibration.report import CalibrationReport
from lychee_evaluate.calibration.threshold_search import format_threshold
from markupsafe import Markup

from lychee_server.web.calibration_job import CalibrationOutcome, JobError, Progress
from lychee_server.web.language import LANGUAGES, Words, both
from lychee_server.web.markup import render
from lychee_server.web.problems import render_alert

SHOWN_REASONS: Final = 50
SHORT_REVISION: Final = 12


def render_empty(words: Words) -> str:
    """Return what stands there before the first calibration."""
    return render("empty", words, key="calibrate.empty", is_announced=False)


def render_progress(words: Words, progress: Progress | None) -> str:
    """Return a bar that says how far a job is.

    Args:
        words: The texts of the page.
        progress: None while the upload is read.
    """
    return render("calibration_progress", words, progress=progress)


def render_note(words: Words, key: str) -> str:
    """Return one sentence in place of a result."""
    return render("empty", words, key=key, is_announced=True)


def render_failure(words: Words, error: Exception) -> str:
    """Return an alert, and the rows that may be the cause."""
    skipped = error.skipped if isinstance(error, JobError) else ()
    return render_alert(words, error) + render("calibration_skipped", words, **_group(skipped), is_open=True)


def render_outcome(words: Words, outcome: CalibrationOutcome) -> str:
    """Return the threshold, how far to trust it, the picture, the downloads, and the rows that did not count."""
    return render(
        "calibration",
        words,
        report=outcome.report,
        show_threshold=format_threshold,
        file=_data_url("application/json", outcome.calibration),
        picture=_data_url("image/png", outcome.picture),
        provenance=_say_provenance(words, outcome.report),
        **_group(outcome.skipped),
        is_open=False,
    )


def _group(skipped: Sequence[SkippedRow]) -> dict[str, Any]:
    """Return what calibration_skipped.html.jinja names: the first reasons, and how many rows have another one."""
    groups = list(group_skipped(skipped).items())
    return {
        "skipped": skipped,
        "reasons": [(reason, list_rows(numbers)) for reason, numbers in groups[:SHOWN_REASONS]],
        "hidden": sum(len(numbers) for _, numbers in groups[SHOWN_REASONS:]),
    }


def _say_provenance(words: Words, report: CalibrationReport) -> Markup:
    calibration = report.calibration
    model = calibration.model
    # The instruction is either a text of its own or the word "none", which differs by language.
    return both(
        {
            language: words.say(
                "calibrate.provenance",
                language,
                model=model.model_id,
                revision=model.revision[:SHORT_REVISION],
                precision=model.precision_text,
                instruction=calibration.instruction or words.say("calibrate.no_instruction", language),
            )
            for language in LANGUAGES
        }
    )


def _data_url(media_type: str, content: bytes) -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"

"""One calibration as HTML, in both languages."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence
from typing import Final

from lychee_evaluate.calibration.evidence import Doubt
from lychee_evaluate.calibration.pairs import SkippedRow, group_skipped, list_rows
from lychee_evaluate.calibration.report import CalibrationReport
from lychee_evaluate.calibration.threshold_search import format_threshold

from lychee_server.web.calibration_job import JobError, Outcome, Progress
from lychee_server.web.language import LANGUAGES, Words
from lychee_server.web.problems import render_alert

SHOWN_REASONS: Final = 50
SHORT_REVISION: Final = 12


def render_empty(words: Words) -> str:
    """Return what stands there before the first calibration."""
    return f'<div class="empty"><p>{words.both("calibrate.empty")}</p></div>'


def render_progress(words: Words, progress: Progress | None) -> str:
    """Return a bar that says how far a job is.

    Args:
        words: Of the page.
        progress: None while the upload is read.
    """
    if progress is None:
        text, value = words.both("calibrate.reading"), ""
    elif progress.done < progress.total:
        text = words.both("calibrate.scoring", done=progress.done, total=progress.total)
        value = f'value="{progress.done}"'
    else:
        text, value = words.both("calibrate.computing", total=progress.total), f'value="{progress.done}"'
    most = progress.total if progress else 1
    return (
        f'<div class="job" role="status"><p>{text}</p>'
        f'<progress max="{most}" {value} aria-label="{_in_both(words, "calibrate.run")}"></progress></div>'
    )


def render_note(words: Words, key: str) -> str:
    """Return one sentence in place of a result."""
    return f'<div class="empty" role="status"><p>{words.both(key)}</p></div>'


def render_failure(words: Words, error: Exception) -> str:
    """Return an alert, and the rows that may be the cause."""
    skipped = error.skipped if isinstance(error, JobError) else ()
    return render_alert(words, error) + _render_skipped(words, skipped, is_open=True)


def render_outcome(words: Words, outcome: Outcome) -> str:
    """Return the threshold, how far to trust it, the picture, the downloads, and the rows that did not count."""
    report = outcome.report
    picture = "data:image/png;base64," + base64.b64encode(outcome.picture).decode("ascii")
    calibration = "data:application/json;base64," + base64.b64encode(outcome.calibration).decode("ascii")
    return (
        f'<section class="calibration">{_render_headline(words, report)}{_render_facts(words, report)}'
        f"{_render_doubts(words, report.doubts, report.notes)}"
        '<div class="downloads">'
        f'<a class="download primary" download="calibration.json" href="{calibration}">'
        f"{words.both('calibrate.download')}</a>"
        f'<a class="download" download="calibration.png" href="{picture}">{words.both("calibrate.download_picture")}'
        f'</a></div><p class="note">{words.both("calibrate.use")}</p>'
        f'<figure class="picture"><div class="scroll" tabindex="0"><img src="{picture}" width="1200" height="800" '
        f'alt="{_in_both(words, "calibrate.picture")}"></div>'
        f"<figcaption>{words.both('calibrate.picture')}</figcaption>"
        f"</figure>{_render_table(words, report)}{_render_skipped(words, outcome.skipped, is_open=False)}"
        f'<p class="note">{_render_provenance(words, report)}</p></section>'
    )


def _render_headline(words: Words, report: CalibrationReport) -> str:
    calibration = report.calibration
    threshold = format_threshold(calibration.threshold)
    low, high = format_threshold(calibration.threshold_low), format_threshold(calibration.threshold_high)
    interval = words.both("calibrate.interval", confidence=f"{calibration.confidence:.0%}", low=low, high=high)
    left, right = 100 * calibration.threshold_low, 100 * calibration.threshold_high
    return (
        f'<div class="verdict" role="status"><p class="eyebrow">{words.both("calibrate.threshold")}</p>'
        f'<p class="number">{threshold}</p><p>{words.both("calibrate.for_target", target=calibration.target)}</p>'
        f'<div class="scale" role="img" aria-label="{_in_both(words, "calibrate.scale", threshold=threshold)}">'
        f'<span class="interval" style="left:{left:.2f}%;width:{max(right - left, 0.5):.2f}%"></span>'
        f'<span class="mark" style="left:{100 * calibration.threshold:.2f}%"></span></div>'
        f"<p>{interval}</p></div>"
    )


def _render_facts(words: Words, report: CalibrationReport) -> str:
    calibration = report.calibration
    precision_low = words.both("calibrate.precision_low", low=f"{report.precision_low:.3f}")
    pairs_of = words.both("calibrate.pairs_of", positives=calibration.positives, queries=calibration.queries)
    half_width = words.both("calibrate.half_width_pairs", pairs=report.pairs_for_half_width)
    facts = (
        ("precision", f"{calibration.precision:.3f} <small>{precision_low}</small>"),
        ("recall", f"{calibration.recall:.3f}"),
        ("f1", f"{calibration.f1:.3f}"),
        ("average_precision", f"{report.average_precision:.3f}"),
        ("pairs", f"{calibration.pairs} <small>{pairs_of}</small>"),
        ("half_width", half_width),
    )
    return (
        '<dl class="facts">'
        + "".join(f"<div><dt>{words.both(f'calibrate.{name}')}</dt><dd>{value}</dd></div>" for name, value in facts)
        + "</dl>"
    )


def _render_doubts(words: Words, doubts: Sequence[Doubt], notes: Sequence[str]) -> str:
    if not doubts and not notes:
        return ""
    items = [words.both(f"calibrate.doubt_{doubt.kind}", **doubt.values) for doubt in doubts]
    items += [f'<span lang="en">{html.escape(note)}</span>' for note in notes]
    listed = "".join(f"<li>{item}</li>" for item in items)
    return f'<div class="warnings"><strong>{words.both("calibrate.doubts")}</strong><ul>{listed}</ul></div>'


def _render_table(words: Words, report: CalibrationReport) -> str:
    rows = []
    for row in report.table:
        chosen = row.threshold == report.calibration.threshold
        name = format_threshold(row.threshold) if chosen else f"{row.threshold:.2f}"
        mark = f" <small>← {words.both('calibrate.chosen')}</small>" if chosen else ""
        precision = "–" if row.precision is None else f"{row.precision:.3f}"
        cells = _cells((str(row.accepted), precision, f"{row.recall:.3f}", f"{row.f1:.3f}"))
        rows.append(f'<tr{" class=chosen" if chosen else ""}><th scope="row">{name}{mark}</th>{cells}</tr>')
    names = ("table_threshold", "table_accepted", "precision", "recall", "f1")
    head = "".join(f'<th scope="col">{words.both(f"calibrate.{name}")}</th>' for name in names)
    return (
        f"<details><summary>{words.both('calibrate.table')}</summary>"
        f'<table class="figures"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></details>'
    )


def _render_skipped(words: Words, skipped: Sequence[SkippedRow], *, is_open: bool) -> str:
    if not skipped:
        return ""
    groups = list(group_skipped(skipped).items())
    rows = "".join(
        f'<tr><td class="rows">{list_rows(numbers)}</td><td lang="en">{html.escape(reason)}</td></tr>'
        for reason, numbers in groups[:SHOWN_REASONS]
    )
    hidden = sum(len(numbers) for _, numbers in groups[SHOWN_REASONS:])
    more = f'<p class="note">{words.both("calibrate.more_reasons", count=hidden)}</p>' if hidden else ""
    return (
        f"<details{' open' if is_open else ''} class=skipped>"
        f"<summary>{words.both('calibrate.skipped', count=len(skipped))}</summary>"
        f'<table class="reasons"><thead><tr><th scope="col">{words.both("calibrate.row")}</th>'
        f'<th scope="col">{words.both("calibrate.reason")}</th></tr></thead><tbody>{rows}</tbody></table>'
        f"{more}</details>"
    )


def _render_provenance(words: Words, report: CalibrationReport) -> str:
    calibration = report.calibration
    model = calibration.model
    # The instruction is either a text of its own or the word "none", which differs by language.
    return "".join(
        f'<span class="in-{language}" lang="{language}">'
        + html.escape(
            words.say(
                "calibrate.provenance",
                language,
                model=model.model_id,
                revision=model.revision[:SHORT_REVISION],
                precision=model.precision_text,
                instruction=calibration.instruction or words.say("calibrate.no_instruction", language),
            )
        )
        + "</span>"
        for language in LANGUAGES
    )


def _cells(values: Iterable[str]) -> str:
    return "".join(f"<td>{value}</td>" for value in values)


def _in_both(words: Words, key: str, **values: object) -> str:
    """Return a text for an attribute, where one language cannot be hidden."""
    return html.escape(" · ".join(words.say(key, language, **values) for language in LANGUAGES))

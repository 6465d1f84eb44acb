"""The state of the gateway as HTML, in both languages."""

from __future__ import annotations

from datetime import UTC, datetime

from markupsafe import Markup

from lychee_server.web.language import Words
from lychee_server.web.markup import render
from lychee_server.web.status_report import StatusReport, read_model_rows


def render_status(words: Words, report: StatusReport, refresh_s: int) -> str:
    """Return the whole report.

    Args:
        words: The texts of the page.
        report: What to show.
        refresh_s: How often it is made anew.
    """
    return render(
        "status",
        words,
        report=report,
        models=read_model_rows(report),
        uptime=_show_duration(words, report.uptime_s),
        show_time=_show_time,
        refresh_s=refresh_s,
    )


def _show_duration(words: Words, seconds: float) -> Markup:
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return words.both("status.days_hours", days=days, hours=hour)
    if hours:
        return words.both("status.hours_minutes", hours=hours, minutes=minute)
    return words.both("status.minutes_seconds", minutes=minutes, seconds=second)


def _show_time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")

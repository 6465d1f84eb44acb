"""The state of the gateway as HTML, in both languages."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from lychee_server.web.language import Words
from lychee_server.web.status_report import SettingValue, StatusReport, read_model_rows

MIB: Final = 2**20
SYMBOLS: Final[Mapping[str, str]] = {
    "ready": "✓",
    "starting": "…",
    "degraded": "!",
    "unavailable": "✕",
    "stopping": "…",
}
NOTHING: Final = "–"


def render_status(words: Words, report: StatusReport, refresh_s: int) -> str:
    """Return the whole report.

    Args:
        words: Of the page.
        report: What to show.
        refresh_s: How often it is made anew.
    """
    taken_at = words.both("status.taken_at", time=_format_time(report.taken_at), seconds=refresh_s)
    away = "" if report.triton.live else f'<p class="away">{words.both("status.away")}</p>'
    reason = "" if report.reason is None else f'<p class="reason" lang="en">{html.escape(report.reason)}</p>'
    return (
        f'<section class="status" data-state="{report.state}"><div class="banner">'
        f'<p class="state"><span aria-hidden="true">{SYMBOLS[report.state]}</span> '
        f"{words.both(f'status.{report.state}')}</p>{away}{reason}"
        f'<p class="note">{taken_at}</p></div><div class="panels">'
        f"{_render_model(words, report)}{_render_traffic(words, report.traffic)}"
        f"{_render_cache(words, report.traffic['cache'])}{_render_memory(words, report)}</div>"
        f"{_render_models(words, report)}{_render_golden(words, report)}"
        f'<div class="panels">{_render_settings(words, report.settings)}{_render_versions(words, report)}</div>'
        "</section>"
    )


def _render_model(words: Words, report: StatusReport) -> str:
    manifest = report.manifest
    facts = [
        ("model_id", NOTHING if manifest is None else html.escape(manifest.model_id)),
        ("revision", NOTHING if manifest is None else html.escape(manifest.revision[:12])),
        ("precision", NOTHING if manifest is None else html.escape(manifest.precision)),
        ("execution", _render_execution(report)),
        ("family", NOTHING if manifest is None else html.escape(manifest.family)),
        ("triton", html.escape(report.triton.version or NOTHING)),
        ("uptime", _render_duration(words, report.uptime_s)),
    ]
    return _panel(words, "status.model", _facts(words, facts))


def _render_execution(report: StatusReport) -> str:
    """Say what executes each encoder; the reason is there for those who point at it."""
    execution = {} if report.manifest is None else report.manifest.execution
    lines = [
        f'<span title="{html.escape(each.reason, quote=True)}">{html.escape(f"{name}: {each}")}</span>'
        for name, each in execution.items()
    ]
    return "<br>".join(lines) or NOTHING


def _render_traffic(words: Words, traffic: Mapping[str, Any]) -> str:
    calls, latency, totals = traffic["calls"], traffic["latency_ms"], traffic["totals"]
    rejected = [
        f"{words.both(f'status.rejected_{reason}')} {count:,}" for reason, count in traffic["rejected"].items() if count
    ]
    facts = [
        ("calls_per_s", f"{traffic['rates']['calls_per_s']:.2f}"),
        ("documents_per_s", f"{traffic['rates']['documents_per_s']:.1f}"),
        ("p50", _milliseconds(words, latency["p50"])),
        ("p99", _milliseconds(words, latency["p99"])),
        ("running", words.both("status.of_limit", count=calls["running"], limit=calls["max_running"])),
        ("waiting_calls", words.both("status.of_limit", count=calls["waiting"], limit=calls["max_waiting"])),
        ("requests", f"{totals['requests']:,}"),
        ("documents", f"{totals['documents']:,}"),
        ("rejected", "<br>".join(rejected) or words.both("status.none")),
    ]
    return _panel(words, "status.traffic", _facts(words, facts))


def _render_cache(words: Words, cache: Mapping[str, Any] | None) -> str:
    if cache is None:
        return _panel(words, "status.cache", f'<p class="note">{words.both("status.cache_off")}</p>')
    lookups = cache["hits"] + cache["misses"]
    rate = f"{cache['hits'] / lookups:.1%}" if lookups else NOTHING
    facts = [
        (
            "cache_rate",
            words.both("status.cache_rate_of", rate=rate, hits=f"{cache['hits']:,}", lookups=f"{lookups:,}"),
        ),
        ("cache_kind", words.both("status.cache_redis" if cache["backend"] == "redis" else "status.cache_memory")),
    ]
    if cache["entries"] is not None:
        facts.append(("cache_entries", f"{cache['entries']:,}"))
    if cache["bytes"] is not None and cache["max_bytes"] is not None:
        size = words.both("status.of_limit", count=_mib(cache["bytes"]), limit=_mib(cache["max_bytes"]))
        facts.append(("cache_size", size))
    facts += [("cache_evictions", f"{cache['evictions']:,}"), ("cache_failures", f"{cache['failures']:,}")]
    return _panel(words, "status.cache", _facts(words, facts))


def _render_memory(words: Words, report: StatusReport) -> str:
    memory = report.memory
    triton = words.both("status.memory_elsewhere") if memory.triton is None else _mib(memory.triton)
    facts = [("memory_gateway", _mib(memory.gateway)), ("memory_triton", triton)]
    note = "" if memory.triton is None else f'<p class="note">{words.both("status.memory_note")}</p>'
    return _panel(words, "status.memory", _facts(words, facts) + note)


def _render_models(words: Words, report: StatusReport) -> str:
    if not report.triton.models:
        return ""
    rows = []
    for model, counted in read_model_rows(report):
        state = words.both("status.state_ready" if model.ready else "status.state_not_ready")
        symbol = "✓" if model.ready else "✕"
        reason = f'<br><small lang="en">{html.escape(model.reason)}</small>' if model.reason else ""
        cells = [f'<span aria-hidden="true">{symbol}</span> {state}{reason}']
        if counted is None:
            cells += ["0", NOTHING, NOTHING, NOTHING]
        else:
            lookups = counted.cache_hits + counted.cache_misses
            cells += [
                f"{counted.requests:,}",
                f"{counted.queue_ms:.1f}",
                f"{counted.compute_ms:.1f}",
                f"{counted.cache_hits / lookups:.0%}" if lookups else NOTHING,
            ]
        version = f" <small>{html.escape(model.version)}</small>" if model.version else ""
        rows.append((f"{html.escape(model.name)}{version}", cells))
    table = _table(
        words, ("col_model", "col_state", "col_requests", "col_queue", "col_compute", "col_cache"), rows, "models"
    )
    return _panel(words, "status.models", f'{table}<p class="note">{words.both("status.models_note")}</p>')


def _render_golden(words: Words, report: StatusReport) -> str:
    golden = report.golden
    note = f'<p class="note">{words.both("status.golden_note")}</p>'
    if golden is None or report.golden_checked_at is None:
        return _panel(words, "status.golden", f"<p>{words.both('status.golden_never')}</p>{note}")
    verdict = words.both(
        "status.golden_passed" if golden.passed else "status.golden_failed",
        count=len(golden.pairs),
        error=f"{golden.max_abs_error:.2g}",
        tolerance=f"{golden.tolerance:g}",
    )
    rows = [
        (str(number), [f"{pair.expected:.4f}", f"{pair.measured:.4f}", f"{pair.abs_error:.1e}"])
        for number, pair in enumerate(golden.pairs, start=1)
    ]
    table = _table(words, ("golden_pair", "golden_expected", "golden_measured", "golden_error"), rows, "pairs")
    checked_at = words.both("status.golden_at", time=_format_time(report.golden_checked_at))
    return _panel(
        words,
        "status.golden",
        f'<p class="golden" data-passed="{str(golden.passed).lower()}"><span aria-hidden="true">'
        f"{'✓' if golden.passed else '✕'}</span> {verdict}</p><p>{checked_at}</p>{table}{note}",
    )


def _render_settings(words: Words, settings: Mapping[str, SettingValue]) -> str:
    rows = "".join(
        f"<div><dt><code>{html.escape(name.replace('_', '-'))}</code></dt>"
        f"<dd>{_render_setting(words, value)}</dd></div>"
        for name, value in settings.items()
    )
    return _panel(words, "status.settings", f'<dl class="facts">{rows}</dl>')


def _render_setting(words: Words, value: SettingValue) -> str:
    if value is True:
        return words.both("status.on")
    if value is False or value is None or value == "":
        return words.both("status.off")
    return html.escape(str(value))


def _render_versions(words: Words, report: StatusReport) -> str:
    rows = "".join(
        f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(version)}</dd></div>"
        for name, version in report.versions.items()
    )
    return _panel(words, "status.versions", f'<dl class="facts">{rows}</dl>')


def _panel(words: Words, key: str, content: str) -> str:
    return f'<div class="panel"><h3>{words.both(key)}</h3>{content}</div>'


def _facts(words: Words, facts: Iterable[tuple[str, str]]) -> str:
    rows = "".join(f"<div><dt>{words.both(f'status.{name}')}</dt><dd>{value}</dd></div>" for name, value in facts)
    return f'<dl class="facts">{rows}</dl>'


def _table(words: Words, columns: Iterable[str], rows: Iterable[tuple[str, list[str]]], kind: str) -> str:
    """Return a table whose cells carry their column's name, which a narrow screen shows beside them."""
    names = [words.both(f"status.{name}") for name in columns]
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    body = "".join(
        f'<tr><th scope="row">{title}</th>'
        + "".join(
            f'<td><span class="column" aria-hidden="true">{name}</span><span>{cell}</span></td>'
            for name, cell in zip(names[1:], cells, strict=True)
        )
        + "</tr>"
        for title, cells in rows
    )
    return f'<table class="figures {kind}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _render_duration(words: Words, seconds: float) -> str:
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return words.both("status.days_hours", days=days, hours=hour)
    if hours:
        return words.both("status.hours_minutes", hours=hours, minutes=minute)
    return words.both("status.minutes_seconds", minutes=minutes, seconds=second)


def _milliseconds(words: Words, value: float | None) -> str:
    return words.both("status.no_calls") if value is None else f"{value:,.1f} ms"


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / MIB:,.1f} MiB"


def _format_time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")

"""NVIDIA's AIPerf as the caller of a gateway: the command line of one run, and what its export says."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

__all__ = [
    "ENDPOINT_TYPES",
    "ExportError",
    "Load",
    "Outcome",
    "format_table",
    "make_command",
    "make_variables",
    "read_export",
    "write_tokenizer",
]

ENDPOINT_TYPES: Final = ("cohere_rankings", "hf_tei_rankings", "nim_rankings")
"""The shapes that AIPerf speaks: `/v2/rerank`, `/rerank` of Text Embeddings Inference, `/v1/ranking` of NIM."""

_EXPORT: Final = "profile_export_aiperf.json"
# With HF_HUB_OFFLINE it would refuse a tokenizer's folder, so the hub is an address where nothing listens.
_NO_HUB: Final = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_DISABLE_TELEMETRY": "1"}
_PROXIES: Final = ("http_proxy", "https_proxy", "all_proxy")


class ExportError(Exception):
    """AIPerf left no numbers."""


@dataclass(frozen=True)
class Load:
    """What AIPerf sends: a closed loop of `concurrency` callers; lengths are in tokens of the served model."""

    concurrency: int = 8
    requests: int = 400
    warm_up: int = 40
    passages: int = 20
    passage_tokens: int = 24
    query_tokens: int = 6


@dataclass(frozen=True)
class Outcome:
    """What one run measured. Latencies are those of the requests without an error; the reasons are the others'."""

    endpoint_type: str
    requests_per_s: float
    p50_ms: float
    p99_ms: float
    requests: int
    errors: int
    reasons: tuple[str, ...] = ()


def make_command(
    aiperf: Path, url: str, model: str, endpoint_type: str, load: Load, *, tokenizer: Path, folder: Path, seed: int
) -> list[str]:
    """Return the command of one run.

    Args:
        aiperf: The program.
        url: The gateway's.
        model: Its model's name.
        endpoint_type: One of `ENDPOINT_TYPES`.
        load: What is sent.
        tokenizer: A folder with the tokenizer, so that none is looked for elsewhere.
        folder: For the export.
        seed: Of the texts: two runs with different seeds have none in common, so no cache knows them.
    """
    options: dict[str, object] = {
        "model": model,
        "url": url,
        "endpoint-type": endpoint_type,
        "tokenizer": tokenizer,
        "concurrency": load.concurrency,
        "request-count": load.requests,
        "warmup-request-count": load.warm_up,
        "num-dataset-entries": load.requests + load.warm_up,
        "rankings-passages-mean": load.passages,
        "rankings-passages-prompt-token-mean": load.passage_tokens,
        "rankings-query-prompt-token-mean": load.query_tokens,
        "random-seed": seed,
        "artifact-dir": folder,
        "export-level": "summary",
        "ui-type": "none",
    }
    named = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return [str(aiperf), "profile", *named, "--no-gpu-telemetry", "--no-server-metrics"]


def write_tokenizer(folder: Path, tokenizer_json: str) -> None:
    """Write a tokenizer as transformers reads it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(tokenizer_json, encoding="utf-8")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}\n', encoding="utf-8")


def make_variables(home: Path, environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return AIPerf's environment: no hub answers, no proxy stands before the gateway, and its files stay in `home`."""
    variables = dict(os.environ if environment is None else environment)
    kept = {name: value for name, value in variables.items() if name.lower() not in _PROXIES}
    return kept | _NO_HUB | {"HOME": str(home), "HF_HOME": str(home / "huggingface")}


def read_export(folder: Path, endpoint_type: str) -> Outcome:
    """Read what a run wrote into its folder.

    Raises:
        ExportError: It wrote nothing, or no request had an answer.
    """
    path = folder / _EXPORT
    if not path.is_file():
        raise ExportError(f"AIPerf wrote no {path}; what it printed says why")
    export: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    errors = int(_value(export, "error_request_count", "avg", default=0.0))
    reasons = tuple(
        f"{entry['count']} x {entry['error_details'].get('message')}" for entry in export.get("error_summary") or ()
    )
    if "request_latency" not in export:
        raise ExportError(
            f"{endpoint_type}: none of {errors} requests had an answer that AIPerf can read; {'; '.join(reasons)}"
        )
    return Outcome(
        endpoint_type,
        _value(export, "request_throughput", "avg"),
        _value(export, "request_latency", "p50"),
        _value(export, "request_latency", "p99"),
        int(_value(export, "request_count", "avg")),
        errors,
        reasons,
    )


def _value(export: Mapping[str, Any], metric: str, statistic: str, default: float | None = None) -> float:
    found = (export.get(metric) or {}).get(statistic, default)
    if found is None:
        raise ExportError(f"AIPerf's export has no {metric}.{statistic}; it has {sorted(export)}")
    return float(found)


def format_table(outcomes: Iterable[Outcome], passages: int) -> str:
    """Return the outcomes as a table in Markdown."""
    lines = ["| endpoint type | requests/s | passages/s | p50 | p99 | errors |", "|---|---|---|---|---|---|"]
    for outcome in outcomes:
        asked = outcome.requests + outcome.errors
        lines.append(
            f"| `{outcome.endpoint_type}` | {outcome.requests_per_s:.1f} | {passages * outcome.requests_per_s:.0f} "
            f"| {outcome.p50_ms:.0f} ms | {outcome.p99_ms:.0f} ms | {outcome.errors} of {asked} |"
        )
    return "\n".join(lines)

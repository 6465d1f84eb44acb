"""AIPerf's command line and environment, and what its export says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from lychee_loadtest.speed import aiperf_bench
from lychee_loadtest.speed.aiperf import (
    ENDPOINT_TYPES,
    ExportError,
    Load,
    Outcome,
    format_table,
    make_command,
    make_variables,
    read_export,
    write_tokenizer,
)

REQUIREMENTS = Path(aiperf_bench.__file__).with_name("aiperf_requirements.txt")
EXPORT: dict[str, Any] = {
    "request_throughput": {"unit": "requests/sec", "avg": 12.5},
    "request_latency": {"unit": "ms", "avg": 70.0, "p50": 64.25, "p99": 120.5},
    "request_count": {"unit": "requests", "avg": 400.0},
    "error_summary": [],
}


def command(load: Load, *, seed: int = 3) -> list[str]:
    where = {"tokenizer": Path("/tokenizer"), "folder": Path("/out")}
    return make_command(
        Path("/aiperf"), "http://127.0.0.1:7860", "lychee-mini", "nim_rankings", load, seed=seed, **where
    )


def write(folder: Path, **changes: Any) -> Path:
    content = {name: value for name, value in (EXPORT | changes).items() if value is not None}
    (folder / "profile_export_aiperf.json").write_text(json.dumps(content))
    return folder


def test_command_names_gateway_shape_and_load() -> None:
    words = command(Load(concurrency=4, requests=10, warm_up=2, passages=7, passage_tokens=9))
    options = dict(zip(words[2::2], words[3::2], strict=False))
    assert words[:2] == ["/aiperf", "profile"]
    assert options["--url"] == "http://127.0.0.1:7860"
    assert options["--endpoint-type"] == "nim_rankings"
    assert options["--concurrency"] == "4"
    assert options["--request-count"] == "10"
    assert options["--rankings-passages-mean"] == "7"
    assert options["--rankings-passages-prompt-token-mean"] == "9"


def test_command_sends_no_text_twice() -> None:
    words = command(Load(requests=10, warm_up=2), seed=5)
    assert words[words.index("--num-dataset-entries") + 1] == "12"
    assert words[words.index("--random-seed") + 1] == "5"


def test_tokenizer_is_a_folder_that_transformers_can_open(tmp_path: Path) -> None:
    words = command(Load())
    assert words[words.index("--tokenizer") + 1] == "/tokenizer"
    write_tokenizer(tmp_path / "tokenizer", '{"model": {}}')
    assert json.loads((tmp_path / "tokenizer" / "tokenizer.json").read_text()) == {"model": {}}
    assert json.loads((tmp_path / "tokenizer" / "tokenizer_config.json").read_text())["tokenizer_class"]


def test_no_hub_and_no_proxy_is_asked() -> None:
    variables = make_variables(
        Path("/home"), {"PATH": "/bin", "HTTPS_PROXY": "http://proxy", "http_proxy": "http://proxy"}
    )
    assert variables["PATH"] == "/bin"
    assert variables["HF_ENDPOINT"].startswith("http://127.0.0.1:")
    assert variables["HOME"] == "/home"
    assert not {"HTTPS_PROXY", "http_proxy"} & set(variables)


def test_export_is_read(tmp_path: Path) -> None:
    failed = [{"error_details": {"code": 504, "message": "too late"}, "count": 2}]
    write(tmp_path, error_request_count={"unit": "requests", "avg": 2.0}, error_summary=failed)
    outcome = read_export(tmp_path, "cohere_rankings")
    assert outcome == Outcome("cohere_rankings", 12.5, 64.25, 120.5, 400, 2, ("2 x too late",))


def test_export_without_errors_has_none(tmp_path: Path) -> None:
    assert read_export(write(tmp_path), "cohere_rankings").errors == 0


def test_run_whose_requests_all_failed_says_why(tmp_path: Path) -> None:
    failed = [{"error_details": {"code": 404, "message": "there is no such path"}, "count": 9}]
    write(tmp_path, request_latency=None, error_summary=failed, error_request_count={"avg": 9.0})
    with pytest.raises(ExportError, match=r"hf_tei_rankings: none of 9 requests .*no such path"):
        read_export(tmp_path, "hf_tei_rankings")


def test_missing_export_and_missing_metric_are_named(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="wrote no"):
        read_export(tmp_path, "cohere_rankings")
    write(tmp_path, request_throughput=None)
    with pytest.raises(ExportError, match=r"request_throughput\.avg"):
        read_export(tmp_path, "cohere_rankings")


def test_table_has_a_line_for_each_shape() -> None:
    lines = format_table((Outcome(kind, 12.5, 64.4, 120.5, 400, 2) for kind in ENDPOINT_TYPES), 20).splitlines()
    assert len(lines) == 2 + len(ENDPOINT_TYPES)
    assert lines[2] == "| `cohere_rankings` | 12.5 | 250 | 64 ms | 120 ms | 2 of 402 |"


def test_every_requirement_is_pinned_and_torch_stays_out() -> None:
    requirements = [line for line in REQUIREMENTS.read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line) for line in requirements)
    names = [line.partition("==")[0].lower() for line in requirements]
    assert "aiperf" in names
    assert not {"torch", "torchvision", "timm"} & set(names)

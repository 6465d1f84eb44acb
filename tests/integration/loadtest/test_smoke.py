"""A whole load test: server, Locust with all transports and both lanes, limits, results, report."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from lychee_loadtest.locust import smoke
from lychee_loadtest.results.results import read_results
from PIL import Image

TIMEOUT_S = 180
LIMITS = """
[calls."all"]
failure_share = 0
[calls."gRPC bulk/text"]
min_calls = 1
[calls."HTTP interactive"]
min_calls = 1
[calls."REST interactive"]
min_calls = 1
[calls."interactive"]
p50_ms = 0.001  # which no machine can keep
"""


@pytest.mark.triton
@pytest.mark.slow
def test_smoke_measures_all_transports_and_lanes_and_fails_on_a_broken_limit(
    root: Path, repository: Path, tmp_path: Path
) -> None:
    limits, output = tmp_path / "limits.toml", tmp_path / "run.json"
    limits.write_text(LIMITS, encoding="utf-8")
    command = [sys.executable, "-m", "lychee_loadtest.locust.smoke", "--seconds=5", "--bulk-documents=12"]
    finished = subprocess.run(
        [*command, f"--limits={limits}", f"--output={output}"],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert finished.returncode == 1, finished.stdout + finished.stderr
    results = read_results(output)
    assert {(verdict.subject, verdict.measure) for verdict in results.verdicts if not verdict.met} == {
        ("interactive", "p50_ms")
    }, finished.stdout + finished.stderr
    sums = {entry.name: entry for entry in results.sums}
    assert {"gRPC interactive", "HTTP interactive", "REST interactive", "gRPC bulk"} <= set(sums)
    assert results.messages == {}
    assert results.generator.processes == 1
    assert results.generator.hub_lag_p99_ms is not None
    assert results.settings["bulk_documents"] == 12
    assert "BROKEN interactive: p50_ms" in finished.stdout
    assert "<html" in output.with_suffix(".html").read_text(encoding="utf-8")[:500]
    with Image.open(output.with_suffix(".png")) as picture:
        assert picture.size[0] == 1600


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--host=http://127.0.0.1:1", "--limits=LIMITS"], "no section 'call'"),
        (["--grpc-url=127.0.0.1:1", "RestUser"], "RestUser needs --host"),
        (["--grpc-url=127.0.0.1:1", "--timeout-s=2"], "the server cannot be loaded"),
    ],
)
def test_options_that_cannot_work_end_the_run_before_it_begins(
    root: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    limits = tmp_path / "limits.toml"
    limits.write_text("[call]\n", encoding="utf-8")
    arguments = [option.replace("LIMITS", str(limits)) for option in options]
    locust = Path(sys.executable).parent / "locust"
    finished = subprocess.run(
        [
            locust,
            f"--locustfile={Path(smoke.__file__).parent / 'locustfile.py'}",
            "--headless",
            *arguments,
        ],
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert finished.returncode == 2, finished.stdout + finished.stderr
    assert message in finished.stderr
    assert "Traceback" not in finished.stderr

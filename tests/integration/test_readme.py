"""The README's example runs and prints what the README says."""

import re
from pathlib import Path

import pytest
from lychee_server import TritonServer

pytestmark = pytest.mark.triton


def test_sdk_example_prints_what_the_readme_shows(
    root: Path, server: TritonServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (root / "README.md").read_text(encoding="utf-8")
    match = re.search(r"```python\n(.*?)```\n\n```\n(.*?)```", text, re.DOTALL)
    assert match
    code, shown = match.groups()
    assert "localhost:8001" in code
    monkeypatch.chdir(root)
    exec(compile(code.replace("localhost:8001", server.grpc_url), "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert re.sub(r"0\.\d+|1\.000", "#", printed) == re.sub(r"0\.\d+|1\.000", "#", shown)
    scores = [[float(score) for score in re.findall(r"\d\.\d{3}", output)] for output in (printed, shown)]
    assert scores[0] == pytest.approx(scores[1], abs=0.02)

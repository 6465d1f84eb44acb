"""The README's examples run and print what the README says."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from lychee_server import TritonServer

pytestmark = pytest.mark.triton

NUMBER = re.compile(r"0\.\d+|1\.000")
TOLERANCE = 2e-3
"""Of a number with three places, on the plain CPU provider in float32."""


def run(code: str, server: TritonServer) -> None:
    """Execute an example against the test's server."""
    code = code.replace("localhost:8001", server.grpc_url).replace("localhost:8000", server.http_url)
    exec(compile(code, "README.md", "exec"), {"__name__": "__main__"})


def numbers(output: str) -> list[float]:
    return [float(number) for number in NUMBER.findall(output)]


@pytest.fixture
def text(root: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the README, with its folder as the current one."""
    monkeypatch.chdir(root)
    return (root / "README.md").read_text(encoding="utf-8")


def test_examples_print_what_the_readme_shows(
    text: str, server: TritonServer, capsys: pytest.CaptureFixture[str]
) -> None:
    examples = re.findall(r"```python\n([^`]*)```\n\n```\n([^`]*)```", text)
    assert len(examples) == 2
    for code, shown in examples:
        run(code, server)
        printed = capsys.readouterr().out
        assert NUMBER.sub("#", printed) == NUMBER.sub("#", shown)
        assert numbers(printed) == pytest.approx(numbers(shown), abs=TOLERANCE)


def test_calibration_is_made_and_used_as_the_readme_shows(
    text: str, root: Path, server: TritonServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lychee = Path(sys.executable).parent / "lychee"
    match = re.search(r"^lychee (calibrate examples/.*)\n```\n\n```\n([^`]*)```", text, re.MULTILINE)
    assert match
    command, shown = match.groups()
    arguments = [part.strip('"') for part in command.split()]
    output = tmp_path / "calibration.json"
    finished = subprocess.run(
        [lychee, *arguments, "--url", server.grpc_url, "--output", output], capture_output=True, text=True, timeout=120
    )
    assert finished.returncode == 0, finished.stderr
    printed = finished.stdout.replace(f"{tmp_path}/", "")
    conclusion = printed[printed.index("threshold 0.") :]
    assert NUMBER.sub("#", conclusion) == NUMBER.sub("#", shown)
    assert numbers(conclusion) == pytest.approx(numbers(shown), abs=TOLERANCE)
    (code,) = re.findall(r"```python\n([^`]*Calibration.load[^`]*)```", text)
    run(code.replace("calibration.json", str(output)), server)
    assert re.fullmatch(r"(accept|review|reject) 0\.\d+\n", capsys.readouterr().out)

"""The examples of the documents run and print what the documents say."""

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

PAGES = ["README.md", "README.zh-CN.md", "docs/tutorial.md", "docs/reference/sdk.md", "docs/how-to/frameworks.md"]
TUTORIAL = "docs/tutorial.md"
ELSEWHERE = "lychee_client.integrations"
"""What imports this runs in tests/clients, where the frameworks are."""
BULK = "docs/how-to/bulk.md"
"""Its example runs in tests/integration/bulk, beside Ray."""


def run(code: str, page: str, server: TritonServer) -> None:
    """Execute an example against the test's server."""
    code = code.replace("localhost:8001", server.grpc_url).replace("localhost:8000", server.http_url)
    exec(compile(code, page, "exec"), {"__name__": "__main__"})


def numbers(output: str) -> list[float]:
    return [float(number) for number in NUMBER.findall(output)]


@pytest.fixture(autouse=True)
def project(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make the project's folder the current one, as the examples expect."""
    monkeypatch.chdir(root)
    return root


@pytest.mark.parametrize("page", PAGES)
def test_examples_print_what_the_page_shows(
    page: str, project: Path, server: TritonServer, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (project / page).read_text(encoding="utf-8")
    examples = re.findall(r"```python\n([^`]*)```\n\n```\n([^`]*)```", text)
    assert examples
    for code, shown in examples:
        if ELSEWHERE in code:
            continue
        run(code, page, server)
        printed = capsys.readouterr().out
        assert NUMBER.sub("#", printed) == NUMBER.sub("#", shown)
        assert numbers(printed) == pytest.approx(numbers(shown), abs=TOLERANCE)


def test_every_python_example_is_run(project: Path) -> None:
    for page in [*project.glob("README*.md"), *(project / "docs").rglob("*.md")]:
        examples = re.findall(r"```python\n([^`]*)```(\n\n```\n)?", page.read_text(encoding="utf-8"))
        name = page.relative_to(project).as_posix()
        for code, output in examples:
            assert name in (*PAGES, BULK)
            assert output or (name == TUTORIAL and "Calibration.load" in code)


def test_calibration_is_made_and_used_as_the_tutorial_shows(
    project: Path, server: TritonServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (project / TUTORIAL).read_text(encoding="utf-8")
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
    run(code.replace("calibration.json", str(output)), TUTORIAL, server)
    assert re.fullmatch(r"(accept|review|reject) 0\.\d+\n", capsys.readouterr().out)


def test_sheet_is_sampled_as_the_tutorial_shows(project: Path, server: TritonServer, tmp_path: Path) -> None:
    text = (project / TUTORIAL).read_text(encoding="utf-8")
    match = re.search(r"^lychee (sample examples/.*)$", text, re.MULTILINE)
    assert match
    lychee, sheet = Path(sys.executable).parent / "lychee", tmp_path / "sheet.csv"
    finished = subprocess.run(
        [lychee, *match.group(1).split(), "--url", server.grpc_url, "--output", sheet],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert finished.returncode == 0, finished.stderr
    assert len(sheet.read_text(encoding="utf-8-sig").splitlines()) == 51

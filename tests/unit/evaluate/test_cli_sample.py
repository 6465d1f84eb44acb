"""`lychee sample` on a server in this process, and the way back into `lychee calibrate`."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import PIL.Image
import pytest
from fakes.commands import evaluate
from fakes.dual_encoder import FakeTransport
from lychee_client import LycheeClient
from lychee_evaluate.cli import pair_scoring
from typer.testing import CliRunner, Result

Run = Callable[..., Result]


@pytest.fixture
def run(transport: FakeTransport, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run a command in a folder of its own, on a fake transport per client."""
    monkeypatch.chdir(tmp_path)

    def make_client(url: str | None) -> LycheeClient:
        own = FakeTransport()
        own.live = transport.live
        return LycheeClient(url, transport=own)

    monkeypatch.setattr(pair_scoring, "LycheeClient", make_client)
    return lambda *arguments: CliRunner().invoke(evaluate, [str(argument) for argument in arguments])


@pytest.fixture
def items(tmp_path: Path) -> Path:
    """Return 8 queries with 9 documents each, an image and formulas among them."""
    (tmp_path / "data").mkdir()
    PIL.Image.new("RGB", (30, 20), "red").save(tmp_path / "data" / "red.png")
    documents = [
        "=1+1",
        "红色的车",
        "@home",
        "a car",
        {"image": "red.png"},
        {"image": "red.png", "text": "red"},
        "x",
        "y",
        "z",
    ]
    lines = [{"query": f"{word} {word}", "documents": documents} for word in "abcdefgh"]
    path = tmp_path / "data" / "items.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in lines), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["sheet.csv", "sheet.jsonl"])
def test_filled_in_sheet_goes_into_calibrate(run: Run, items: Path, tmp_path: Path, name: str) -> None:
    result = run("sample", items, "--count", "40", "--output", name, "--json")
    assert result.exit_code == 0, result.stderr
    summary = json.loads(result.stdout)
    assert (summary["pairs"], summary["queries"], summary["candidates"]) == (40, 8, 72)
    assert (summary["threshold"], summary["skipped"]) == (0.55, [])
    sheet = tmp_path / name
    assert "score" not in sheet.read_text(encoding="utf-8")
    fill_in(sheet)
    done = run("calibrate", sheet, "--bootstrap", "100", "--json")
    assert done.exit_code == 0, done.stderr
    data = json.loads(done.stdout)
    assert (data["calibration"]["pairs"], data["skipped"]) == (40, [])


def fill_in(sheet: Path) -> None:
    """Label every other row, as a person with a spreadsheet would."""
    if sheet.suffix == ".jsonl":
        lines = [json.loads(line) for line in sheet.read_text(encoding="utf-8").splitlines()]
        filled = [json.dumps(line | {"relevant": str(index % 2)}) for index, line in enumerate(lines)]
        sheet.write_text("\n".join(filled), encoding="utf-8")
        return
    with sheet.open(encoding="utf-8-sig", newline="") as file:
        header, *rows = csv.reader(file)
    assert not any(cell.startswith(("=", "@")) for row in rows for cell in row)
    column = header.index("relevant")
    for index, row in enumerate(rows):
        assert row[column] == ""
        row[column] = str(index % 2)
    with sheet.open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def test_same_seed_writes_the_same_sheet(run: Run, items: Path, tmp_path: Path) -> None:
    contents = []
    for name in ("first.csv", "second.csv"):
        assert run("sample", items, "--count", "20", "--seed", "3", "--output", name).exit_code == 0
        contents.append((tmp_path / name).read_bytes())
    assert contents[0] == contents[1]


def test_people_are_told_what_to_do_next(run: Run, items: Path) -> None:
    result = run("sample", items, "--threshold", "0.8")
    assert "50 of 72 pairs, of 8 queries, chosen around the score 0.8" in result.stdout
    assert "lychee calibrate sheet.csv" in result.stdout


def test_instruction_travels_with_the_sheet(run: Run, items: Path, tmp_path: Path) -> None:
    result = run("sample", items, "--instruction", "找商品", "--output", "s.jsonl")
    assert result.exit_code == 0
    lines = [json.loads(line) for line in (tmp_path / "s.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {line["instruction"] for line in lines} == {"找商品"}
    assert "warning" in result.stderr  # the fake model reads none


def test_labelled_and_unusable_rows_are_left_out(run: Run, tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text(
        "query,text,image,relevant\nq,a,,1\nq,b,,\nq,,gone.png,\n,c,,\n", encoding="utf-8"
    )
    result = run("sample", "items.csv", "--json")
    summary = json.loads(result.stdout)
    assert summary["rows"] == [3]
    assert {skip["row"] for skip in summary["skipped"]} == {2, 4, 5}
    assert "labelled already" in result.stderr


@pytest.mark.parametrize("content", ["query,text\n", "query,text,relevant\nq,a,1\n"], ids=["empty", "all labelled"])
def test_nothing_to_label_is_exit_code_1(run: Run, tmp_path: Path, content: str) -> None:
    (tmp_path / "items.csv").write_text(content)
    result = run("sample", "items.csv")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "no pair to label" in result.stderr
    assert not (tmp_path / "sheet.csv").exists()


def test_nothing_that_can_be_scored_is_exit_code_1(run: Run, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    (tmp_path / "items.csv").write_text("query,image\nq,broken.png\n")
    result = run("sample", "items.csv")
    assert result.exit_code == 1
    assert "none of the 1 pairs could be scored" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["--count", "0"],
        ["--threshold", "2"],
        ["--output", "sheet.pdf"],
        ["--output", "sheet.csv", "--format", "xlsx"],
        ["--output", "taken.csv"],
        ["--policy", "lax"],
    ],
)
def test_bad_options_are_exit_code_2(run: Run, items: Path, tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "taken.csv").write_text("labels of a day's work")
    assert run("sample", items, *arguments).exit_code == 2
    assert (tmp_path / "taken.csv").read_text() == "labels of a day's work"


def test_dead_server_leaves_no_sheet(run: Run, items: Path, tmp_path: Path, transport: FakeTransport) -> None:
    transport.live = False
    assert run("sample", items).exit_code == 1
    assert not (tmp_path / "sheet.csv").exists()

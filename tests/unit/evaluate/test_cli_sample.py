"""`lychee sample` on a server in this process, and the way back into `lychee calibrate`."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import openpyxl
import PIL.Image
import pytest
from fakes.commands import evaluate
from fakes.dual_encoder import FakeTransport
from lychee_client import LycheeClient
from lychee_evaluate.cli import pair_scoring
from lychee_evaluate.tables.reading import read_table_file
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


SHOP = (
    "早晨的咖啡",
    "红色连衣裙",
    "无线蓝牙耳机",
    "男士跑步鞋",
    "儿童绘本故事",
    "不锈钢炒锅",
    "电动牙刷",
    "羽绒服女冬季",
)


def save_as_text(rows: list[list[str]], encoding: str, separator: str, first: str = "") -> bytes:
    file = io.StringIO()
    file.write(first)
    csv.writer(file, delimiter=separator).writerows(rows)
    return file.getvalue().encode(encoding)


def save_as_workbook(rows: list[list[str]]) -> bytes:
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(
            [{"TRUE": True, "FALSE": False, "1.0": 1.0, "0.0": 0}.get(cell, cell or None) for cell in row]
        )
    file = io.BytesIO()
    book.save(file)
    return file.getvalue()


@pytest.mark.parametrize(
    ("written", "form", "labels"),
    [
        ("csv", "utf-8-sig ;", ("是", "否")),
        ("csv", "gb18030 ,", ("TRUE", "FALSE")),
        ("xlsx", "gb18030 sep", ("１", "０")),
        ("csv", "utf-16 \t", ("1.0", "0.0")),
        ("csv", "xlsx", ("TRUE", "FALSE")),
        ("xlsx", "xlsx", ("1.0", "0.0")),
    ],
)
def test_sheet_goes_into_calibrate_however_a_spreadsheet_has_saved_it(
    run: Run, tmp_path: Path, form: str, labels: tuple[str, str], written: str
) -> None:
    items = [{"query": word, "documents": [f"{word} {other}" for other in SHOP]} for word in SHOP]
    (tmp_path / "items.jsonl").write_text("\n".join(json.dumps(item) for item in items), encoding="utf-8")
    assert run("sample", "items.jsonl", "--count", "40", "--format", written).exit_code == 0
    table = read_table_file(tmp_path / f"sheet.{written}")
    header = [column.name for column in table.columns]
    rows = [header]
    for index, row in enumerate(table.rows):
        cells = [*row.cells, *[""] * (len(header) - len(row.cells))]
        rows.append(
            [labels[index % 2] if name == "relevant" else cell or "" for name, cell in zip(header, cells, strict=True)]
        )
    encoding, _, separator = form.partition(" ")
    if form == "xlsx":
        path, content = tmp_path / "filled.xlsx", save_as_workbook(rows)
    elif separator == "sep":
        path, content = tmp_path / "filled.csv", save_as_text(rows, encoding, ";", "sep=;\r\n")
    else:
        path, content = tmp_path / "filled.csv", save_as_text(rows, encoding, separator)
    path.write_bytes(content)
    result = run("calibrate", path, "--bootstrap", "100", "--json")
    assert result.exit_code == 0, result.stderr
    data = json.loads(result.stdout)
    assert (data["calibration"]["pairs"], data["calibration"]["positives"], data["skipped"]) == (40, 20, [])
    assert ("GB18030" in result.stderr) == ("gb18030" in form)


def test_workbook_is_written_where_it_is_asked_for(run: Run, items: Path, tmp_path: Path) -> None:
    result = run("sample", items, "--count", "9", "--output", "标注.xlsx")
    assert result.exit_code == 0, result.stderr
    sheet = openpyxl.load_workbook(tmp_path / "标注.xlsx").active
    assert [cell.value for cell in sheet[1]][:4] == ["query", "query_image", "text", "image"]
    assert (sheet.max_row, sheet.freeze_panes) == (10, "A2")


def test_encoding_can_be_said_where_it_is_not_clear(run: Run, tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_bytes("query,text\ncat,苹果\n".encode("gbk"))
    refused = run("sample", "items.csv")
    assert (refused.exit_code, "--encoding gb18030" in refused.stderr) == (2, True)
    assert run("sample", "items.csv", "--encoding", "gb18030", "--output", "s.jsonl").exit_code == 0
    assert json.loads((tmp_path / "s.jsonl").read_text(encoding="utf-8"))["text"] == "苹果"


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

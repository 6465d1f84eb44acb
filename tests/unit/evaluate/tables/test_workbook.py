"""Workbooks: what people do to them, and what is refused."""

from __future__ import annotations

import datetime
import io
import sys
import zipfile
from collections.abc import Callable

import openpyxl
import pytest
from lychee_client import ConfigurationError
from lychee_evaluate.tables import workbook
from lychee_evaluate.tables.message import Message, TableError
from lychee_evaluate.tables.reading import read_table
from lychee_evaluate.tables.table import Table
from lychee_evaluate.tables.writing import format_table

HEADER = ["查询", "文档", "标签"]


def make(fill: Callable[[openpyxl.Workbook], None]) -> bytes:
    book = openpyxl.Workbook()
    fill(book)
    file = io.BytesIO()
    book.save(file)
    return file.getvalue()


def read(fill: Callable[[openpyxl.Workbook], None], name: str = "p.xlsx") -> Table:
    return read_table(name, make(fill))


def rows_of(table: Table) -> list[tuple[int, tuple[object, ...]]]:
    return [(row.number, row.cells) for row in table.rows]


def error_kind(data: bytes, name: str = "p.xlsx") -> str:
    with pytest.raises(TableError) as caught:
        read_table(name, data)
    return caught.value.message.kind


def change(data: bytes, part: str, edit: Callable[[bytes], bytes]) -> bytes:
    """Return a workbook with another content of one part."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, edit(old.read(name)) if name == part else old.read(name))
    return file.getvalue()


def test_cells_are_what_they_show() -> None:
    def fill(book: openpyxl.Workbook) -> None:
        book.active.append([*HEADER, "日期", "数"])
        book.active.append(["猫", "第一行\n第二行", True, datetime.datetime(2026, 11, 27), 1.5])
        book.active.append([12, 1.0, False, datetime.datetime(2026, 11, 27, 8, 30), "1.50"])
        book.active.append([" a ", "'=1+1", "是", datetime.time(8, 30), 10**15])

    assert rows_of(read(fill)) == [
        (2, ("猫", "第一行\n第二行", "TRUE", "2026-11-27", "1.5")),
        (3, ("12", "1", "FALSE", "2026-11-27 08:30:00", "1.50")),
        (4, (" a ", "=1+1", "是", "08:30:00", "1000000000000000")),
    ]


def test_first_sheet_that_is_shown_and_not_empty_is_read_and_named() -> None:
    def fill(book: openpyxl.Workbook) -> None:
        book.active.title = "封面"
        secret = book.create_sheet("secret")
        secret.append(["query", "text"])
        secret.append(["hidden", "hidden"])
        secret.sheet_state = "hidden"
        data = book.create_sheet("数据")
        data.append(HEADER)
        data.append(["猫", "狗", 1])

    table = read(fill)
    assert rows_of(table) == [(2, ("猫", "狗", "1"))]
    assert "read the sheet '数据' alone, not 封面, secret" in [str(note) for note in table.notes]


def test_only_a_hidden_sheet_is_read_all_the_same() -> None:
    def fill(book: openpyxl.Workbook) -> None:
        hidden = book.create_sheet("x")
        hidden.append(HEADER)
        hidden.append(["猫", "狗", 1])
        hidden.sheet_state = "veryHidden"

    assert rows_of(read(fill)) == [(2, ("猫", "狗", "1"))]


def test_merged_cells_count_in_each_row() -> None:
    def fill(book: openpyxl.Workbook) -> None:
        sheet = book.active
        sheet.append(["标注"])
        sheet.merge_cells("A1:C1")
        sheet.append(HEADER)
        for row in (["猫", "a", 1], [None, "b", 0], [None, "c", None], ["狗", "d", 1]):
            sheet.append(row)
        sheet.merge_cells("A3:A5")
        sheet.merge_cells("C4:C5")
        sheet.merge_cells("A7:A100000")

    table = read(fill)
    assert rows_of(table) == [
        (3, ("猫", "a", "1")),
        (4, ("猫", "b", "0")),
        (5, ("猫", "c", "0")),
        (6, ("狗", "d", "1")),
    ]
    assert {"merged_cells", "header_row"} <= {note.kind for note in table.notes}


def test_formulas_that_were_never_computed_cost_their_row_and_others_do_not() -> None:
    def fill(book: openpyxl.Workbook) -> None:
        book.active.append([*HEADER, "note"])
        book.active.append(["猫", '=A2&"x"', 1])
        book.active.append(["猫", "a", 1, "=1+1"])

    rows = read(fill).rows
    assert rows[0].cells == ("猫", Message("not_calculated", {"cell": "B2"}), "1")
    assert "open the file in Excel and save it" in str(rows[0].cells[1])
    assert rows[1].cells[:3] == ("猫", "a", "1")


def test_computed_formulas_are_their_values() -> None:
    def fill(book: openpyxl.Workbook) -> None:
        book.active.append(HEADER)
        book.active.append(["猫", "=1", "=2"])

    def compute(sheet: bytes) -> bytes:
        sheet = sheet.replace(b'<c r="B2"><f>1</f><v /></c>', b'<c r="B2" t="str"><f>1</f><v>text</v></c>')
        return sheet.replace(b'<c r="C2"><f>2</f><v /></c>', b'<c r="C2" t="b"><f>2</f><v>1</v></c>')

    data = make(fill)
    assert rows_of(read_table("p.xlsx", change(data, "xl/worksheets/sheet1.xml", compute))) == [
        (2, ("猫", "text", "TRUE"))
    ]


def test_errors_in_cells_are_named() -> None:
    def fill(book: openpyxl.Workbook) -> None:
        book.active.append(HEADER)
        book.active.append(["猫", "#N/A", 1])

    assert read(fill).rows[0].cells[1] == Message("error_cell", {"value": "#N/A"})


def test_blank_rows_notes_beside_the_table_and_a_huge_range_do_no_harm() -> None:
    def fill(book: openpyxl.Workbook) -> None:
        sheet = book.active
        sheet["A4"], sheet["B4"], sheet["C4"] = HEADER
        sheet["A5"], sheet["B5"], sheet["C5"] = "猫", "狗", 1
        sheet["H5"] = "a note beside the table"
        sheet["H6"] = "another"
        sheet["A1048576"] = "末"

    assert rows_of(read(fill)) == [(5, ("猫", "狗", "1")), (1048576, ("末",))]


def test_what_a_sheet_says_about_its_size_is_not_believed() -> None:
    def fill(book: openpyxl.Workbook) -> None:
        book.active.append(HEADER)
        book.active.append(["猫", "狗", 1])

    def lie(sheet: bytes) -> bytes:
        assert b'<dimension ref="A1:C2"' in sheet
        return sheet.replace(b'<dimension ref="A1:C2"', b'<dimension ref="A1"')

    data = change(make(fill), "xl/worksheets/sheet1.xml", lie)
    assert rows_of(read_table("p.xlsx", data)) == [(2, ("猫", "狗", "1"))]


@pytest.mark.parametrize("name", ["p.csv", "p.xlsm", "p.xls"])
def test_content_counts_more_than_the_name(name: str) -> None:
    table = read(lambda book: [book.active.append(HEADER), book.active.append(["a", "b", 1])], name)  # type: ignore[arg-type,return-value]
    assert rows_of(table) == [(2, ("a", "b", "1"))]


def test_more_rows_than_allowed_are_refused() -> None:
    data = format_table([{"query": str(number)} for number in range(5)], ["query"], "xlsx")
    assert len(read_table("p.xlsx", data, max_rows=5).rows) == 5
    with pytest.raises(TableError, match="more than 4 rows"):
        read_table("p.xlsx", data, max_rows=4)


def test_bomb_is_refused_before_it_is_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    data = make(lambda book: book.active.append(HEADER))
    size = workbook.MAX_UNPACKED_BYTES_SENT
    bomb = change(data, "xl/worksheets/sheet1.xml", lambda sheet: sheet + b" " * size)
    assert len(bomb) < 2**20
    with pytest.raises(TableError, match="unpacks to 32 MiB, more than the 32 allowed"):
        read_table("p.xlsx", bomb, max_rows=5)
    monkeypatch.setattr(workbook, "MAX_UNPACKED_BYTES", size)
    assert error_kind(bomb) == "workbook_too_large"


def test_entities_that_multiply_are_refused() -> None:
    lines = ['<!DOCTYPE x [<!ENTITY a0 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa">']
    lines += [f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 9)]
    attack = "".join(lines) + "]>"
    data = make(lambda book: book.active.append(["a"]))

    def expand(part: bytes) -> bytes:
        assert b"<t>a</t>" in part
        return attack.encode() + part.replace(b"<t>a</t>", b"<t>&a8;</t>")

    assert error_kind(change(data, "xl/worksheets/sheet1.xml", expand)) == "workbook_damaged"


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", "empty"),
        (b"query,text\n", "no_workbook"),
        (b"PK\x03\x04 torn off", "workbook_damaged"),
        (make(lambda book: None), "empty"),
        (make(lambda book: None)[:-100], "workbook_damaged"),
        (change(make(lambda book: None), "xl/workbook.xml", lambda part: b"<x"), "workbook_damaged"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(512) + "Workbook".encode("utf-16-le"), "old_workbook"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(512) + "EncryptedPackage".encode("utf-16-le"), "encrypted"),
    ],
)
def test_what_cannot_be_read_says_what_to_do(data: bytes, kind: str) -> None:
    assert error_kind(data) == kind


@pytest.mark.parametrize(
    ("member", "kind"),
    [
        ("xl/workbook.bin", "binary_workbook"),
        ("mimetype", "other_office"),
        ("Index/Document.iwa", "other_office"),
        ("pairs.csv", "no_workbook"),
    ],
)
def test_other_zips_are_told_apart(member: str, kind: str) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(member, "x")
    assert error_kind(file.getvalue()) == kind


def test_without_openpyxl_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    data = make(lambda book: book.active.append(HEADER))
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(TableError, match=r"pip install 'lychee-rerank-evaluate\[xlsx\]'"):
        read_table("p.xlsx", data)
    with pytest.raises(TableError, match="pip install"):
        format_table([], ["query"], "xlsx")
    assert read_table("p.csv", b"query\na\n").rows


def test_written_sheet_comes_back_and_holds_no_formula() -> None:
    cells = ["=1+1", "@a", "-3", "'=1", "007", "1e5", '猫,"\n', "", "\tx", "a\x0bb", "_x0041_", "TRUE"]
    data = format_table([{"query": "q", "text": cell} for cell in cells], ["query", "text"], "xlsx")
    sheet = openpyxl.load_workbook(io.BytesIO(data)).active
    assert {cell.data_type for row in sheet.iter_rows() for cell in row if cell.value is not None} == {"s"}
    assert not any(str(cell.value).startswith(("=", "@", "-")) for row in sheet.iter_rows() for cell in row)
    found = [row.cells[1] if len(row.cells) > 1 else "" for row in read_table("p.xlsx", data).rows]
    assert found == [cell.replace("\x0b", "\ufffd") for cell in cells]


def test_text_that_no_cell_holds_is_refused_and_not_cut() -> None:
    with pytest.raises(ConfigurationError, match=r"row 2 .* 32768 characters"):
        format_table([{"query": "x" * 32_768}], ["query"], "xlsx")

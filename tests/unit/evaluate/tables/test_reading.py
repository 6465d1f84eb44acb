"""Text tables as people have them: separators, headers, names of columns, row numbers."""

from __future__ import annotations

import csv
import io
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lychee_evaluate.tables.cell_values import protect_cell
from lychee_evaluate.tables.column_names import NAMES
from lychee_evaluate.tables.message import LANGUAGES, Message, TableError
from lychee_evaluate.tables.reading import read_table
from lychee_evaluate.tables.table import MAX_COLUMNS, Table, column_letter
from lychee_evaluate.tables.wording import WORDINGS

CHARACTERS = st.characters(codec="utf-8", exclude_categories=("Cs",), exclude_characters="\0\r")
CELLS = st.text(CHARACTERS, max_size=12)
HEADERS = {"english": ["query", "text", "label"], "chinese": ["查询", "文档", "标签"], "none of ours": ["a", "b", "c"]}


def meanings(table: Table) -> list[str | None]:
    return [column.meaning for column in table.columns]


def kinds(table: Table) -> list[str]:
    return [note.kind for note in table.notes]


def error_kind(name: str, data: bytes | str, **options: int) -> str:
    with pytest.raises(TableError) as caught:
        read_table(name, data.encode() if isinstance(data, str) else data, **options)
    return caught.value.message.kind


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "gb18030"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@settings(max_examples=25, deadline=None)
@given(
    rows=st.lists(st.tuples(CELLS, CELLS, CELLS), min_size=1, max_size=6),
    header=st.sampled_from(sorted(HEADERS)),
    declared=st.booleans(),
    end=st.sampled_from(["\r\n", "\n"]),
)
def test_what_a_spreadsheet_writes_is_read_back(
    encoding: str, separator: str, rows: list[tuple[str, ...]], header: str, declared: bool, end: str
) -> None:
    if encoding == "gb18030" and header != "chinese":
        header = "chinese"  # otherwise the statistics may refuse, which test_encoding.py is about
    file = io.StringIO()
    file.write(f"sep={separator}{end}" if declared else "")
    writer = csv.writer(file, delimiter=separator, lineterminator=end)
    writer.writerow(HEADERS[header])
    writer.writerows([protect_cell(cell) for cell in row] for row in rows)
    data = file.getvalue().encode(encoding)
    if encoding == "gb18030" and data.isascii():
        return
    table = read_table("pairs.csv", data)
    assert [column.name for column in table.columns] == HEADERS[header]
    expected = [(number, row) for number, row in enumerate(rows, start=2) if any(cell.strip() for cell in row)]
    found = [(row.number, (*row.cells, *[""] * (3 - len(row.cells)))) for row in table.rows]
    assert [number for number, _ in found] == [number for number, _ in expected]
    for (_, got), (_, sent) in zip(found, expected, strict=True):
        plain = [cell for cell in got if not isinstance(cell, Message)]
        if len(plain) == 3:
            assert [cell.strip() for cell in got] == [cell.strip() for cell in sent]


@pytest.mark.parametrize(
    ("name", "text", "separator"),
    [
        ("p.csv", "query;text;label\na, b;c, d;1\n", ";"),
        ("p.csv", "query\ttext\tlabel\na, b\tc; d\t1\n", "tab"),
        ("p.tsv", "a\tb, c\n1\t2\n", "tab"),
        ("p.txt", "query|text\na|b\n", "|"),
        ("p.csv", "sep=;\nx,1;y,2;z\na;b;c\n", ";"),
        ("p.csv", '"sep=^"\r\nquery^text\r\na^b\r\n', "^"),
        ("p.csv", "\n\n  \n查询;文本\na;b\n", ";"),
    ],
)
def test_separator_is_found_and_said(name: str, text: str, separator: str) -> None:
    table = read_table(name, text.encode())
    assert len(table.columns) >= 2
    assert f"columns separated by {separator}" in [str(note) for note in table.notes]


def test_commas_and_utf8_are_not_worth_a_word() -> None:
    assert read_table("p.csv", b"query,text,relevant\na,b,1\n").notes == ()


def test_one_column_is_a_table() -> None:
    table = read_table("p.csv", "query\n一, 二\nb\n".encode())
    assert ([row.problem and row.problem.kind for row in table.rows]) == ["torn_row", None]
    assert [row.cells for row in read_table("p.csv", b"sep=;\nquery\na, b\n").rows] == [("a, b",)]


def test_rows_have_the_numbers_that_a_spreadsheet_shows() -> None:
    text = 'sep=,\r\nquery,text\r\n"a\r\nb",c\r\n\r\n,,\r\nd,e\r\n'
    rows = read_table("p.csv", text.encode()).rows
    assert [(row.number, row.cells) for row in rows] == [(2, ("a\r\nb", "c")), (5, ("d", "e"))]


def test_empty_columns_and_rows_at_the_end_are_passed_over() -> None:
    table = read_table("p.csv", b"query,text,,,\na,b,,,\n,,,,\nc,d\n,,,,\n")
    assert [column.name for column in table.columns] == ["query", "text"]
    assert [row.cells for row in table.rows] == [("a", "b"), ("c", "d")]


def test_row_that_a_comma_has_torn_apart_is_a_problem() -> None:
    (row,) = read_table("p.csv", b"query,text\na,b,c\n").rows
    assert (row.cells, str(row.problem)) == ((), "it has 3 cells, the header 2; put texts with commas in quotes")


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("查询,文本,相关", ["query", "text", "relevant"]),
        ("问题,文档,标签", ["query", "text", "relevant"]),
        ("查询图片,图片,是否相关,指令", ["query_image", "image", "relevant", "instruction"]),
        ("Question,Passage,LABEL,Score", ["query", "text", "relevant", "relevance_score"]),
        ("编号,查询词,内容,分数", ["id", "query", "text", "relevance_score"]),
        ("query,document,label", ["query", "text", "relevant"]),
        ("Query Image, Is-Relevant ,ｑｕｅｒｙ", ["query_image", "relevant", "query"]),
        ("查詢,文字,標籤", ["query", "text", "relevant"]),
        ("colour,price", [None, None]),
        ("text,title,document", ["text", None, None]),
        ("relevant,label", ["relevant", None]),
    ],
)
def test_columns_mean_what_their_names_say(header: str, expected: list[str | None]) -> None:
    assert meanings(read_table("p.csv", f"{header}\na,b,c,d\n".encode())) == expected


def test_what_was_made_of_the_columns_is_said() -> None:
    table = read_table("p.csv", "查询,document,title,note\na,b,c,d\n".encode())
    assert [str(note) for note in table.notes] == [
        "columns: 查询 = query, document = text",
        "the columns title are passed over, because another one means the same",
    ]


def test_no_name_means_two_things() -> None:
    names = [name for known in NAMES.values() for name in known]
    assert len(names) == len(set(names))
    assert all(meaning == known[0] for meaning, known in NAMES.items())


def test_title_above_the_header_is_passed_over() -> None:
    table = read_table("p.csv", "搜索相关性标注\n2026年11月\n查询,文本,标签\n猫,相关,1\n".encode())
    assert meanings(table) == ["query", "text", "relevant"]
    assert [row.number for row in table.rows] == [4]
    assert "row 3" in str(table.notes[0])


def test_words_in_the_rows_make_no_header_of_them() -> None:
    table = read_table("p.csv", "frage,ding,urteil\nlabel,相关,相关\n".encode())
    assert [column.name for column in table.columns] == ["frage", "ding", "urteil"]


def test_equal_names_are_refused_where_they_count() -> None:
    assert error_kind("p.csv", "query,标签,标签\na,b,c\n") == "column_twice"
    assert len(read_table("p.csv", b"query,note,note,,x\na,b,c,d,e\n").rows[0].cells) == 5


def test_columns_without_a_name_have_their_letter() -> None:
    assert [column.name for column in read_table("p.csv", b",query,,x\n1,2,3,4\n").columns] == ["A", "query", "C", "x"]
    assert [column_letter(place) for place in (1, 26, 27, 702, 703)] == ["A", "Z", "AA", "ZZ", "AAA"]


def test_errors_of_formulas_count_only_where_they_are_needed() -> None:
    rows = read_table("p.csv", b"query,text,note\na,#N/A,x\na,b,#REF!\n").rows
    assert [cell for cell in rows[0].cells if isinstance(cell, Message)] == [Message("error_cell", {"value": "#N/A"})]
    assert rows[1].cells == ("a", "b", "#REF!")


@pytest.mark.parametrize(
    ("name", "data", "kind"),
    [
        ("p.csv", "", "empty"),
        ("p.csv", "\n\n,,\n", "empty"),
        ("p.pdf", "x", "suffix"),
        ("p", "x", "suffix"),
        ("p.xls", "x", "old_workbook"),
        ("p.et", "x", "old_workbook"),
        ("p.ods", "x", "other_office"),
        ("p.numbers", "x", "other_office"),
        ("p.xlsb", "x", "binary_workbook"),
        ("p.xls", "<html xmlns:x='urn:schemas-microsoft-com:office:excel'>", "web_page"),
        ("p.csv", "<?xml version='1.0'?><Workbook>", "web_page"),
        ("p.csv", 'query,text\n"a"b,c\n', "not_csv"),
        ("p.csv", ",".join(f"c{number}" for number in range(MAX_COLUMNS + 1)), "too_many_columns"),
        ("p.csv", "query,text\n" + "," * 100_000, "too_many_columns"),
        ("p.jsonl", "".join(f'{{"c{number}": 1}}\n' for number in range(MAX_COLUMNS + 1)), "too_many_columns"),
    ],
)
def test_what_is_no_table_says_what_to_do(name: str, data: str, kind: str) -> None:
    assert error_kind(name, data) == kind


@pytest.mark.parametrize("name", ["p.csv", "p.jsonl"])
def test_more_rows_than_allowed_are_refused(name: str) -> None:
    data = "query\na\nb\nc\n" if name == "p.csv" else '{"query": "a"}\n' * 3
    assert len(read_table(name, data.encode(), max_rows=3).rows) == 3
    assert error_kind(name, data, max_rows=2) == "too_many_rows"


def test_millions_of_empty_lines_are_refused() -> None:
    assert error_kind("p.csv", "query\n" + "\n" * 1000, max_rows=5) == "too_many_rows"


@settings(max_examples=150, deadline=None)
@given(
    data=st.one_of(
        st.binary(max_size=300),
        st.text(max_size=100).map(lambda text: text.encode("utf-16", "surrogatepass")),
        st.builds(
            bytes.__add__, st.sampled_from([b"PK\x03\x04", b"\xff\xfe", b"sep=;\n", b'{"a":']), st.binary(max_size=99)
        ),
    ),
    name=st.sampled_from(["p.csv", "p.tsv", "p.jsonl", "p.xlsx", "p"]),
)
def test_any_bytes_are_a_table_or_an_error_that_is_meant(data: bytes, name: str) -> None:
    found = try_read(name, data)
    if isinstance(found, TableError):
        assert str(found).startswith(f"{name}: ")
        assert found.message.say("zh")
    else:
        assert all(len(row.cells) <= len(found.columns) for row in found.rows)


def try_read(name: str, data: bytes) -> Table | TableError:
    try:
        return read_table(name, data, max_rows=50)
    except TableError as error:
        return error


def test_every_message_has_both_languages_and_the_same_values() -> None:
    for kind, wordings in WORDINGS.items():
        assert set(wordings) == set(LANGUAGES), kind
        fields = [_placeholders(wordings[language]) for language in LANGUAGES]
        assert fields[0] == fields[1], kind
        assert not wordings["zh"].isascii()


def _placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}

"""Files of pairs: every row counts, or is listed with the reason why not."""

import json
from pathlib import Path, PurePath

import pytest
from lychee_client import ConfigurationError, Image, ImageText
from lychee_evaluate.calibration.pairs import Pair, hash_pairs, parse_pairs, read_pairs, select_instruction
from lychee_evaluate.tables.cell_values import protect_cell, restore_cell
from lychee_evaluate.tables.reading import read_table_file
from lychee_evaluate.tables.writing import format_table


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


def reasons(path: Path, *, labelled: bool = True) -> dict[int, str]:
    return {skip.row: skip.reason for skip in read_pairs(path, labelled=labelled).skipped}


def test_csv_with_all_columns(tmp_path: Path) -> None:
    (tmp_path / "猫.jpg").write_bytes(b"x")
    header = "Query,query_image,text,image,relevant,instruction,note\r\n"
    rows = '一只猫,,"a, ""b""\nc",猫.jpg,1,Judge,!\r\n,猫.jpg,d,,0\r\n'
    sheet = read_pairs(write(tmp_path / "pairs.csv", header + rows, "utf-8-sig"), labelled=True)
    photo = tmp_path / "猫.jpg"
    assert sheet.pairs == (
        Pair(2, "一只猫", None, 'a, "b"\nc', photo, "Judge", True),
        Pair(3, None, photo, "d", None, None, False),
    )
    assert sheet.skipped == ()
    assert isinstance(sheet.pairs[0].document_input, ImageText)
    assert isinstance(sheet.pairs[1].query_input, Image)
    assert sheet.pairs[1].document_input == "d"


def test_json_lines_take_numbers_booleans_and_lists_of_documents(tmp_path: Path) -> None:
    lines = [
        {"query": "q\u2028r", "text": "a", "relevant": 1},
        {"query": "q", "text": "b", "relevant": False},
        {"query": "q", "documents": ["c", {"text": "d", "relevant": "1"}], "relevant": "0"},
    ]
    path = write(tmp_path / "p.jsonl", "\n".join(json.dumps(line, ensure_ascii=False) for line in lines) + "\n\n")
    pairs = read_pairs(path, labelled=True).pairs
    assert [(pair.row, pair.query, pair.text, pair.relevant) for pair in pairs] == [
        (1, "q\u2028r", "a", True),
        (2, "q", "b", False),
        (3, "q", "c", False),
        (3, "q", "d", True),
    ]


def test_bad_rows_cost_only_themselves_and_are_listed(tmp_path: Path) -> None:
    rows = [
        "query,text,image,relevant",
        "q,a,,1",
        "q,b,,",
        ",c,,1",
        "q, ,,1",
        "q,d,gone.jpg,1",
        "q,e,,maybe",
        "",
        "q,f,,2",
    ]
    path = write(tmp_path / "pairs.csv", "\n".join([*rows, "q,g,,1,surplus", ",,,,", "q,h,,0"]))
    assert [pair.text for pair in read_pairs(path, labelled=True).pairs] == ["a", "h"]
    found = reasons(path)
    expected = {
        3: "relevant is empty",
        4: "no query",
        5: "no document",
        6: "'gone.jpg' is not a file",
        7: "relevant is 'maybe'; expected 0 or 1",
        9: "relevant is '2'",
        10: "5 cells, the header 4",
    }
    assert set(found) == set(expected)
    assert all(words in found[row] for row, words in expected.items())
    assert 3 not in reasons(path, labelled=False)


def test_bad_json_lines_cost_only_themselves(tmp_path: Path) -> None:
    lines = [
        '{"query": "q", "text": "a", "relevant": 1}',
        '{"query": "q",',
        "[1]",
        '{"query": 5, "text": "b", "relevant": 1}',
        r'{"query": "\ud800", "text": "b", "relevant": 1}',
        '{"query": "q", "image": "' + "x" * 5000 + '", "relevant": 1}',
        '{"query": "q", "image": "\\u0000", "relevant": 1}',
        '{"query": "q", "text": "b", "relevant": 0.5}',
        '{"query": "q", "documents": [7], "relevant": 1}',
        '{"query": "q", "documents": [], "relevant": 1}',
    ]
    path = write(tmp_path / "p.jsonl", "\n".join(lines))
    found = reasons(path)
    assert sorted(found) == list(range(2, 11))
    for row, words in {
        2: "not JSON",
        3: "list",
        4: "query is 5",
        5: "surrogate",
        9: "text is 7",
        10: "no document",
    }.items():
        assert words in found[row]


def test_equal_pairs_count_once_and_contradicting_ones_not_at_all(tmp_path: Path) -> None:
    rows = ["query,text,relevant", "q,a,1", "q,b,1", "q,a ,1", "q,b,0", "q,c,0", "r,a,0"]
    path = write(tmp_path / "pairs.csv", "\n".join(rows))
    assert [pair.row for pair in read_pairs(path, labelled=True).pairs] == [2, 6, 7]
    found = reasons(path)
    assert found[4] == "it is the same pair as row 2, which counts"
    assert "labelled 0 and 1 in rows 3, 5" in found[3]
    assert found[3] == found[5]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("pairs.pdf", b"", r"expected one of \.csv"),
        ("pairs.xlsx", b"", "is empty"),
        ("pairs.csv", None, "No such file"),
        ("pairs.csv", b"", "is empty"),
        ("pairs.csv", "query,text,relevant\n咖啡,a,1".encode("gbk"), "CSV UTF-8"),
        ("pairs.csv", b"query,text,text,relevant\nq,a,b,1", "'text' twice"),
        ("pairs.csv", b'query,text,relevant\nq,"a"b,1', "row 2"),
        ("pairs.csv", b"frage,text,relevant\nq,a,1", "no column query or query_image; it has frage"),
        ("pairs.csv", b"query,thing,relevant\nq,a,1", "no column text or image"),
        ("pairs.csv", b"query,text,colour\nq,a,1", "no column relevant"),
        ("pairs.jsonl", b'{"query": "q", "text": "a"}', "no column relevant"),
    ],
)
def test_file_that_cannot_be_used_is_refused(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigurationError, match=message):
        read_pairs(tmp_path / name, labelled=True)


def test_table_of_a_european_or_chinese_spreadsheet_makes_pairs(tmp_path: Path) -> None:
    (tmp_path / "照片").mkdir()
    (tmp_path / "照片" / "红.png").write_bytes(b"x")
    text = "sep=;\r\n查询;文档;图片;标签;分数\r\n猫;;照片\\红.png;对;0,75\r\n猫;b;;错;１２％\r\n"
    sheet = read_pairs(write(tmp_path / "标注.csv", text, "gb18030"), labelled=True)
    assert sheet.pairs == (
        Pair(2, "猫", None, None, tmp_path / "照片" / "红.png", None, True, 0.75),
        Pair(3, "猫", None, "b", None, None, False, 0.12),
    )
    assert [note.kind for note in sheet.notes] == ["encoding_read", "separator_read", "columns_read"]


@pytest.mark.parametrize("name", ["pairs.csv", "pairs.jsonl"])
def test_header_or_nothing_gives_no_pairs(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, "query,text,relevant\n" if name.endswith("csv") else "\n")
    assert read_pairs(path, labelled=True).pairs == ()


CELLS = ["=1+1", "+x", "-3", "@a", "\tx", "\rx", "＝1", "'=1", "''+1", "'quoted'", "''", "plain", "", "a=b", '猫,"\n']


@pytest.mark.parametrize("cell", CELLS)
def test_cells_survive_the_sheet_and_none_begins_a_formula(tmp_path: Path, cell: str) -> None:
    assert restore_cell(protect_cell(cell)) == cell
    assert protect_cell(cell)[:1] not in tuple("=+-@\t\r＝＋－＠")
    path = tmp_path / "sheet.csv"
    path.write_bytes(format_table([{"a": cell, "b": "x"}], ["a", "b"], "csv"))
    assert path.read_bytes().startswith(b"\xef\xbb\xbf")
    assert read_table_file(path).rows[0].cells == (cell, "x")


def test_pairs_of_several_instructions_need_a_choice() -> None:
    pairs = [
        Pair(row, "q", None, f"t{row}", None, name, True) for row, name in enumerate(["A", None, "B", "A"], start=2)
    ]
    with pytest.raises(
        ConfigurationError, match=r"3 different .*'A' in rows 2, 5; none in rows 3; 'B' in rows 4"
    ) as caught:
        select_instruction(pairs, None)
    assert "--instruction" in str(caught.value)
    kept, left_out, instruction = select_instruction(pairs, "A")
    assert ([pair.row for pair in kept], [skip.row for skip in left_out], instruction) == ([2, 3, 5], [4], "A")
    assert select_instruction(pairs[:1], None)[2] == "A"
    assert select_instruction([], None) == ([], [], None)


def test_pair_that_equals_another_once_it_has_the_instruction_counts_once() -> None:
    pairs = [Pair(2, "q", None, "a", None, "A", True), Pair(3, "q", None, "a", None, None, True)]
    kept, skipped, _ = select_instruction(pairs, "A")
    assert ([pair.row for pair in kept], [skip.row for skip in skipped]) == ([2], [3])


def test_data_hash_depends_on_content_alone(tmp_path: Path) -> None:
    for name, data in (("a.jpg", b"same"), ("b.jpg", b"same"), ("c.jpg", b"other")):
        (tmp_path / name).write_bytes(data)

    def make(image: str, label: bool = True) -> Pair:
        return Pair(7, "猫", None, None, tmp_path / image, None, label)

    text = Pair(3, "q", None, "t", None, None, False)
    digest = hash_pairs([make("a.jpg"), text])
    assert len(digest) == 64
    assert hash_pairs([text, make("b.jpg")]) == digest
    others = [[make("c.jpg"), text], [make("a.jpg", False), text], [make("a.jpg")]]
    assert digest not in {hash_pairs(pairs) for pairs in others}
    with pytest.raises(ConfigurationError, match="gone"):
        hash_pairs([make("gone.jpg")])


def test_content_that_names_files_opens_none_of_them(tmp_path: Path) -> None:
    secret = write(tmp_path / "secret.jpg", "x")
    asked: list[str] = []

    def find(name: str) -> Path:
        asked.append(name)
        return Path("elsewhere")

    data = f"query,image,relevant\nq,{secret},1\n".encode()
    (pair,) = parse_pairs(PurePath("pairs.csv"), data, find_file=find, labelled=True, limit=5).pairs
    assert (asked, pair.image) == ([str(secret)], Path("elsewhere"))


@pytest.mark.parametrize("rows", ["q,a,1\n" * 3, "q,,1\n" * 3])
def test_more_rows_than_allowed_are_refused_whether_they_count_or_not(rows: str) -> None:
    data = f"query,text,relevant\n{rows}".encode()
    assert parse_pairs(PurePath("p.csv"), data, find_file=Path, labelled=True, limit=3)
    with pytest.raises(ConfigurationError, match=r"p\.csv: it has more than 2 rows"):
        parse_pairs(PurePath("p.csv"), data, find_file=Path, labelled=True, limit=2)


@pytest.mark.parametrize(
    ("cell", "expected"), [("0.25", 0.25), ("1", 1.0), ("", None), ("1.01", None), ("nan", None), ("high", None)]
)
def test_score_of_an_earlier_run_is_kept_if_it_is_one(cell: str, expected: float | None, tmp_path: Path) -> None:
    path = write(tmp_path / "p.csv", f"query,text,relevance_score\nq,a,{cell}\n")
    assert read_pairs(path, labelled=False).pairs[0].relevance_score == expected

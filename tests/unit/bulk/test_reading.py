"""Reading files: formats, archives, encodings, and rows that are none."""

import bz2
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lychee_bulk import reading
from lychee_bulk.errors import InputError
from lychee_bulk.reading import TEXT_SCHEMA, count_rows, read_names, read_tables
from lychee_bulk.storage import InputFile, find_files

LINES = b'{"query": "a cat", "n": 1}\n\n{"query": "\xe7\x8c\xab", "extra": null}\n'


def describe(path: Path, kind: str | None = None) -> InputFile:
    (file,) = find_files(str(path), kind)
    return file


def write(path: Path, content: bytes) -> InputFile:
    path.write_bytes(content)
    return describe(path)


def read(file: InputFile) -> list[tuple[Any, str | None]]:
    """Return the values and the problem of each line."""
    rows = pa.concat_tables(read_tables(file)).to_pylist()
    return [(None if row["row"] is None else json.loads(row["row"]), row["problem"]) for row in rows]


@pytest.mark.parametrize(
    ("ending", "compress"), [("", bytes), (".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)]
)
def test_json_lines_are_objects_packed_or_not(tmp_path: Path, ending: str, compress: Callable[[bytes], bytes]) -> None:
    file = write(tmp_path / f"a.jsonl{ending}", compress(b"\xef\xbb\xbf" + LINES))
    assert read(file) == [({"query": "a cat", "n": 1}, None), ({"query": "猫", "extra": None}, None)]
    assert read_names(file) == ["query", "n", "extra"]
    assert count_rows(file) is None


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b'{"query": "a', "the line is no JSON"),
        (b'{"query": "\xff"}', "not UTF-8 at its byte 11"),
        (b"[1]", "JSON of type list; expected an object"),
        (b"[" * 100_000, "the line is no JSON"),
        (b'{"n": ' + b"1" * 5000 + b"}", "the line is no JSON"),
    ],
)
def test_a_bad_line_is_a_row_with_a_problem(tmp_path: Path, line: bytes, problem: str) -> None:
    first, bad, last = read(write(tmp_path / "a.jsonl", b'{"a": 1}\n' + line + b'\r\n{"a": 2}'))
    assert (first, last) == (({"a": 1}, None), ({"a": 2}, None))
    assert bad[0] is None
    assert problem in str(bad[1])


def test_a_line_that_is_too_long_is_a_row_with_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_LINE_BYTES", 20)
    lines = [b'{"a": 1}', b'{"a": "' + b"x" * 50 + b'"}', b'{"a": 2}', b"x" * 21]
    found = read(write(tmp_path / "a.jsonl", b"\n".join(lines)))
    assert [values for values, _ in found] == [{"a": 1}, None, {"a": 2}, None]
    assert found[1][1] == found[3][1] == "the line is longer than 20 bytes"


def test_csv_has_a_header_and_quotes(tmp_path: Path) -> None:
    content = '\ufeffquery,文档\r\n"a ""red""\ncat",b\r\n\r\n,\r\n'.encode()
    file = write(tmp_path / "a.csv", content)
    assert read_names(file) == ["query", "文档"]
    assert read(file) == [({"query": 'a "red"\ncat', "文档": "b"}, None), ({"query": "", "文档": ""}, None)]


def test_ragged_and_undecodable_rows_of_csv_are_rows_with_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "MAX_LINE_BYTES", 50)
    rows = [b"a,b", b"1,2", b"1", b"1,2,3", b"1,\xff", b"1," + b"x" * 60, "1,猫".encode()]
    found = read(write(tmp_path / "a.csv", b"\n".join(rows)))
    assert [values for values, _ in found] == [{"a": "1", "b": "2"}, *[None] * 4, {"a": "1", "b": "猫"}]
    problems = [problem for _, problem in found[1:5]]
    assert problems[:3] == [
        "the row has 1 cells, and the first row 2",
        "the row has 3 cells, and the first row 2",
        "the row is not UTF-8",
    ]
    assert "larger than field limit" in str(problems[3])


def test_parquet_keeps_types_and_columns(tmp_path: Path) -> None:
    table = pa.table({"query": ["a", "b", "c"], "image": [b"1", b"2", b"3"], "n": [1, 2, 3]})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=2)
    file = describe(tmp_path / "a.parquet")
    assert read_names(file) == ["query", "image", "n"]
    assert count_rows(file) == 3
    assert pa.concat_tables(read_tables(file, ("n", "image"))).to_pydict() == {
        "n": [1, 2, 3],
        "image": [b"1", b"2", b"3"],
    }


def test_columns_twice_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="two columns 'a'"):
        read_names(write(tmp_path / "a.csv", b"a,b,a\n1,2,3\n"))
    pq.write_table(pa.table([pa.array([1]), pa.array([2])], names=["a", "a"]), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="two columns 'a'"):
        read_names(describe(tmp_path / "a.parquet"))


def test_a_header_in_another_encoding_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not UTF-8: its first row is"):
        read_names(write(tmp_path / "a.csv", "query,文档\n".encode("gbk")))


@pytest.mark.parametrize("ending", [".gz", ".bz2", ".xz"])
@pytest.mark.parametrize("harm", ["cut", "changed", "changed early"])
def test_a_damaged_archive_cannot_be_read(tmp_path: Path, ending: str, harm: str) -> None:
    compress = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}[ending]
    content = bytearray(compress(b"".join(b'{"n": %d}\n' % (n * 7919) for n in range(5000))))
    if harm == "cut":
        del content[-100:]
    elif harm == "changed early":
        content[12:40] = b"\xff" * 28
    else:
        content[len(content) // 2 : len(content) // 2 + 50] = bytes(50)
    with pytest.raises(InputError, match=r"a\.jsonl.* cannot be read"):
        list(read_tables(write(tmp_path / f"a.jsonl{ending}", bytes(content))))


def test_what_is_no_parquet_cannot_be_read(tmp_path: Path) -> None:
    for content in (b"", b"PAR1 is no more than a word PAR1"):
        with pytest.raises(InputError, match="is no Parquet file"):
            read_names(write(tmp_path / "a.parquet", content))
    pq.write_table(pa.table({"a": list(range(10_000))}), tmp_path / "a.parquet", write_page_checksum=True)
    content = bytearray((tmp_path / "a.parquet").read_bytes())
    content[1000] ^= 255
    with pytest.raises(InputError, match="cannot be read"):
        list(read_tables(write(tmp_path / "a.parquet", bytes(content))))


def test_lines_say_how_far_their_file_was_read(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", b'{"a": 1}\n{"a": 22}\n')
    (table,) = read_tables(file)
    assert table.schema == TEXT_SCHEMA
    assert table["position"].to_pylist() == [9, 19]
    packed = write(tmp_path / "a.jsonl.gz", gzip.compress(b'{"a": 1}\n'))
    (table,) = read_tables(packed)
    assert table["position"].to_pylist() == [packed.size_bytes]


def test_pieces_hold_so_many_rows_or_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "PIECE_ROWS", 4)
    monkeypatch.setattr(reading, "PIECE_BYTES", 60)
    lines = [b'{"a": 1}'] * 6 + [b'{"a": "' + b"x" * 60 + b'"}'] * 2
    file = write(tmp_path / "a.jsonl", b"\n".join(lines))
    assert [table.num_rows for table in read_tables(file)] == [4, 3, 1]

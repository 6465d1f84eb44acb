"""Uploaded pairs: what is read, what is refused, and that no name in them opens a file of this machine."""

from __future__ import annotations

import base64
import io
import stat
import zipfile
from pathlib import Path

import PIL.Image
import pytest
from lychee_client import ConfigurationError
from lychee_evaluate.calibration.pairs import PairSheet
from lychee_evaluate.tables.message import TableError
from lychee_evaluate.tables.writing import format_table
from lychee_server.web import pair_upload
from lychee_server.web.pair_upload import read_upload
from lychee_server.web.problems import PageError

HEADER = "query,text,image,relevant\n"


def make_png(colour: str = "red") -> bytes:
    buffer = io.BytesIO()
    PIL.Image.new("RGB", (8, 8), colour).save(buffer, "PNG")
    return buffer.getvalue()


def make_zip(members: dict[str, bytes | str], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def read(name: str, data: bytes | str, folder: Path) -> PairSheet:
    return read_upload(name, data.encode() if isinstance(data, str) else data, folder)


def error_kind(name: str, data: bytes, folder: Path) -> str:
    with pytest.raises(PageError) as caught:
        read_upload(name, data, folder)
    return caught.value.kind


def reason(table: str, folder: Path, **members: bytes) -> str:
    """Return why the only row of a zipped table does not count."""
    sheet = read("pairs.zip", make_zip({"pairs.csv": HEADER + table, **members}), folder)
    assert sheet.pairs == ()
    return sheet.skipped[0].reason


def test_table_alone_is_read_and_its_data_urls_become_files(tmp_path: Path) -> None:
    url = "data:image/png;base64," + base64.b64encode(make_png()).decode()
    sheet = read("标注.CSV", HEADER + f'一只猫,a,,1\n一只猫,,"{url}",0\n', tmp_path)
    assert [(pair.query, pair.text, pair.relevant) for pair in sheet.pairs] == [
        ("一只猫", "a", True),
        ("一只猫", None, False),
    ]
    image = sheet.pairs[1].image
    assert image is not None
    assert (image.parent, image.read_bytes()) == (tmp_path, make_png())


def test_zip_with_a_folder_chinese_names_and_backslashes_is_read(tmp_path: Path) -> None:
    members: dict[str, bytes | str] = {
        "集/pairs.jsonl": '{"query": "q", "image": "图\\\\红.png", "relevant": 1}\n'
        '{"query_image": "../other/blue.png", "text": "b", "relevant": 0}\n',
        "集/图/红.png": make_png(),
        "other/blue.png": make_png("blue"),
        "__MACOSX/pairs.csv": "x",
        ".hidden.csv": "x",
    }
    sheet = read("pairs.zip", make_zip(members), tmp_path)
    assert sheet.skipped == ()
    first, second = sheet.pairs
    assert first.image is not None
    assert second.query_image is not None
    assert first.image.read_bytes() == make_png()
    assert second.query_image.read_bytes() == make_png("blue")


def test_names_that_windows_wrote_in_its_own_encoding_are_found(tmp_path: Path) -> None:
    placeholder = "x" * len("红.png".encode("gb18030"))
    data = make_zip({"pairs.csv": HEADER + "q,,红.png,1\n", placeholder: make_png()})
    (pair,) = read("pairs.zip", data.replace(placeholder.encode(), "红.png".encode("gb18030")), tmp_path).pairs
    assert pair.image is not None


@pytest.mark.parametrize(
    "name",
    ["/etc/passwd", "../../../../../etc/passwd", "pairs.csv/../../secret.png", "file:///etc/passwd", "secret.png"],
)
def test_names_of_files_on_this_machine_open_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "unpacked"
    folder.mkdir()
    (tmp_path / "secret.png").write_bytes(make_png())
    (folder / "secret.png").write_bytes(make_png())
    monkeypatch.chdir(tmp_path)
    assert "is not in the zip" in reason(f"q,,{name},1\n", folder)
    (skip,) = read("pairs.csv", HEADER + f"q,,{name},1\n", folder).skipped
    assert "did not come with the table" in skip.reason
    assert str(tmp_path) not in skip.reason


def test_members_that_climb_out_of_the_zip_are_written_nowhere(tmp_path: Path) -> None:
    folder = tmp_path / "unpacked"
    folder.mkdir()
    data = make_zip({"pairs.csv": HEADER + "q,,../evil.png,1\n", "a/../../evil.png": make_png()})
    (pair,) = read("pairs.zip", data, folder).pairs
    assert pair.image is not None
    assert pair.image.parent == folder
    assert [path.name for path in tmp_path.iterdir()] == ["unpacked"]


def test_links_are_no_images(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("pairs.csv", HEADER + "q,,link.png,1\n")
        archive.writestr(link, "/etc/passwd")
    assert "is not in the zip" in read("pairs.zip", buffer.getvalue(), tmp_path).skipped[0].reason


def test_encrypted_and_exotic_members_are_no_images(tmp_path: Path) -> None:
    data = make_zip({"pairs.csv": HEADER + "q,,a.png,1\n", "a.png": make_png()}, zipfile.ZIP_BZIP2)
    assert error_kind("pairs.zip", data, tmp_path) == "tables"


def test_damaged_image_costs_only_its_row(tmp_path: Path) -> None:
    members: dict[str, bytes | str] = {"pairs.csv": HEADER + "q,,a.png,1\nq,b,,0\n", "a.png": b"canary" * 9}
    data = make_zip(members, zipfile.ZIP_STORED).replace(b"canary", b"canari", 1)
    sheet = read("pairs.zip", data, tmp_path)
    assert [pair.text for pair in sheet.pairs] == ["b"]
    assert "cannot be unpacked: it is damaged" in sheet.skipped[0].reason


def test_large_image_costs_only_its_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pair_upload, "MAX_IMAGE_BYTES", 2**20)
    assert "more than the 1 MiB allowed" in reason("q,,a.png,1\n", tmp_path, **{"a.png": bytes(2**20 + 1)})


def test_images_that_are_too_large_in_all_end_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pair_upload, "MAX_UNPACKED_BYTES", 1000)
    members: dict[str, bytes | str] = {
        "pairs.csv": HEADER + "q,,a.png,1\nq,,b.png,1\n",
        "a.png": bytes(1000),
        "b.png": b"",
    }
    assert error_kind("pairs.zip", make_zip(members), tmp_path) == "unpacked"


def test_broken_data_url_costs_only_its_row(tmp_path: Path) -> None:
    sheet = read("pairs.csv", HEADER + 'q,,"data:image/png;base64,@@@",1\nq,b,,0\n', tmp_path)
    assert len(sheet.pairs) == 1
    assert "no base64" in sheet.skipped[0].reason


@pytest.mark.parametrize(
    ("name", "data", "key"),
    [
        ("pairs.zip", b"no zip", "zip"),
        ("pairs.zip", make_zip({"a.csv": HEADER})[:-30], "zip"),
        ("pairs.zip", b"garbage" + make_zip({"a.csv": HEADER})[20:], "zip"),
        ("pairs.zip", make_zip({"a.png": b""}), "tables"),
        ("pairs.zip", make_zip({"a.csv": HEADER, "b/c.jsonl": ""}), "tables"),
        ("pairs.csv", b"a" * (pair_upload.MAX_TABLE_BYTES + 1), "table_size"),
        ("pairs.csv", b"\n" * (2 * pair_upload.MAX_ROWS + 1), "pairs"),
        ("pairs.csv", b"\r" * (2 * pair_upload.MAX_ROWS + 1), "pairs"),
    ],
)
def test_what_cannot_be_used_is_refused(name: str, data: bytes, key: str, tmp_path: Path) -> None:
    assert error_kind(name, data, tmp_path) == key
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["pairs.ods", "pairs", "pairs.xls", "pairs.pdf"])
def test_what_is_no_table_is_refused_in_both_languages(name: str, tmp_path: Path) -> None:
    with pytest.raises(TableError) as caught:
        read_upload(name, b"x", tmp_path)
    words = caught.value.message.to_json()["message"]
    assert words["en"].isascii()
    assert not words["zh"].isascii()


def test_workbook_and_rows_that_do_not_count_say_so_in_both_languages(tmp_path: Path) -> None:
    rows = [
        {"查询": "猫", "图片": "a.png", "标签": "是"},
        {"查询": "猫", "文档": "b", "标签": "?"},
        {"查询": "猫", "文档": "c", "标签": "否"},
    ]
    data = format_table(rows, ["查询", "文档", "图片", "标签"], "xlsx")
    for sheet in (read("pairs.xlsx", data, tmp_path), read("pairs.zip", make_zip({"集/pairs.xlsx": data}), tmp_path)):
        assert [(pair.row, pair.text, pair.relevant) for pair in sheet.pairs] == [(4, "c", False)]
        first, second = (skip.to_json() for skip in sheet.skipped)
        assert first["kind"] in ("image_not_sent", "image_not_in_zip")
        assert (second["kind"], second["values"]) == ("bad_label", {"value": "'?'"})
        assert second["message"]["zh"].startswith("relevant（相关）是")
        assert second["reason"] == second["message"]["en"]


def test_table_that_unpacks_to_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pair_upload, "MAX_TABLE_BYTES", 2**20)
    data = make_zip({"pairs.csv": b"\0" * 2**22})
    assert len(data) < 2**13
    assert error_kind("pairs.zip", data, tmp_path) == "zip"


def test_zip_that_understates_a_size_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pair_upload, "MAX_TABLE_BYTES", 2**20)
    size = 2**22
    data = make_zip({"pairs.csv": b"\0" * size}).replace(size.to_bytes(4, "little"), (100).to_bytes(4, "little"))
    assert error_kind("pairs.zip", data, tmp_path) in ("zip", "table_size")


def test_zip_with_many_members_is_refused_by_number_and_by_the_size_of_its_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make_zip({f"{number}.png": b"" for number in range(30)} | {"pairs.csv": HEADER})
    monkeypatch.setattr(pair_upload, "MAX_MEMBERS", 30)
    assert error_kind("pairs.zip", data, tmp_path) == "members"
    monkeypatch.setattr(pair_upload, "_MAX_DIRECTORY_BYTES", 100)
    monkeypatch.setattr(pair_upload.zipfile, "ZipFile", None)  # refused before anyone reads the directory
    assert error_kind("pairs.zip", data, tmp_path) == "members"


def test_one_line_with_many_documents_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pair_upload, "MAX_PAIRS", 10)
    line = '{"query": "q", "relevant": 1, "documents": [' + ",".join(f'"{number}"' for number in range(11)) + "]}"
    with pytest.raises(ConfigurationError, match="more than 10 rows"):
        read("pairs.jsonl", line, tmp_path)

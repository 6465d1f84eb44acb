"""Files and folders: what counts as input, and an output whose files are whole or not there."""

import os
import uuid
from pathlib import Path

import fsspec
import pytest
from lychee_bulk import storage
from lychee_bulk.errors import InputError, MissingPackageError, OutputError
from lychee_bulk.storage import Folder, find_files, find_kind
from lychee_client import ConfigurationError


@pytest.fixture(params=["local", "memory"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return a folder that is not there yet, on the disk or where there are objects and no folders."""
    return str(tmp_path / "scores") if request.param == "local" else f"memory://{uuid.uuid4().hex}/scores"


def test_formats_are_known_by_names() -> None:
    names = ["a.parquet", "a.PQ", "a.jsonl.gz", "a.ndjson", "a.csv.zst", "a.txt", "a.json", "a.gz"]
    assert [find_kind(name) for name in names] == ["parquet", "parquet", "jsonl", "jsonl", "csv", None, None, None]


def test_a_folder_is_its_files_of_known_formats(tmp_path: Path) -> None:
    for name in ("b.csv", "deep/a.csv", "_SUCCESS", ".c.csv.tmp", "_old/d.csv", ".hidden/e.csv", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("query,text\n")
    files = find_files(str(tmp_path))
    assert [file.name for file in files] == ["b.csv", "deep/a.csv"]
    assert {(file.kind, file.size_bytes) for file in files} == {("csv", 11)}
    assert all(file.mark for file in files)
    assert [file.name for file in find_files(f"{tmp_path}/*.csv")] == ["b.csv"]
    assert [file.name for file in find_files(f"{tmp_path}/*/a.csv")] == ["deep/a.csv"]
    assert [file.name for file in find_files(str(tmp_path / "notes.txt"), "csv")] == ["notes.txt"]


def test_a_file_that_changed_has_another_mark(tmp_path: Path) -> None:
    path = tmp_path / "_a.jsonl"  # a single file may be called anything
    path.write_text("{}\n")
    (before,) = find_files(str(path))
    assert find_files(str(path)) == (before,)
    os.utime(path, ns=(1, 1))
    (after,) = find_files(str(path))
    assert (after.mark == before.mark, after.size_bytes) == (False, before.size_bytes)


def test_input_that_is_none_is_refused(tmp_path: Path) -> None:
    for name in ("a.csv", "a.jsonl", "a.txt"):
        (tmp_path / name).touch()
    (tmp_path / "empty").mkdir()
    for address, reason in (
        (tmp_path / "b.csv", "does not exist"),
        (tmp_path / "nowhere", "does not exist"),
        (tmp_path / "a.txt", "of an unknown format"),
        (tmp_path / "empty", "holds no file that ends with .parquet"),
        (tmp_path / "*.parquet", "holds no file"),
        (tmp_path / "*.txt", "of an unknown format"),
        (tmp_path, "several formats, csv, jsonl"),
    ):
        with pytest.raises(InputError, match=reason):
            find_files(str(address))


def test_other_addresses_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"expected a path, s3:// or gs://"):
        find_files("nothing://a.csv")
    monkeypatch.setitem(storage.PACKAGES, "s3", ("a_package_that_is_not_there", "s3"))
    with pytest.raises(MissingPackageError, match=r'pip install "lychee-rerank-bulk\[s3\]"'):
        find_files("s3://bucket/a.csv")


def test_what_is_written_is_listed_read_and_deleted(address: str) -> None:
    folder = Folder(address)
    assert folder.names() == set()
    assert folder.read("a") is None
    folder.create()
    folder.write("a", b"one")
    folder.write("a", b"two")
    folder.write("b", b"")
    assert folder.names() == Folder(address).names() == {"a", "b"}
    assert folder.read("a") == b"two"
    assert (folder.exists("b"), folder.exists("c")) == (True, False)
    with folder.open("a") as file:
        assert file.read() == b"two"
    folder.delete({"a", "c"})
    assert folder.names() == {"b"}


def test_only_a_disk_is_local(address: str) -> None:
    assert Folder(address).is_local == ("memory" not in address)


def test_a_file_has_its_name_when_it_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Folder(str(tmp_path))
    folder.write("a", b"old")
    sizes: list[int] = []

    def refuse(source: Path, target: Path) -> None:
        sizes.append(Path(source).stat().st_size)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(ConfigurationError, match="cannot be written: No space left"):
        folder.write("a", b"new, and longer")
    assert sizes == [15]
    assert folder.names() == {"a"}
    assert folder.read("a") == b"old"


def test_an_output_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="is a file; expected the name of a folder"):
        Folder(str(tmp_path / "file")).names()
    with pytest.raises(OutputError, match="cannot be made"):
        Folder(str(tmp_path / "file" / "scores")).create()


def test_objects_that_others_wrote_are_seen(address: str) -> None:
    folder, other = Folder(address), Folder(address)
    folder.create()
    folder.write("a", b"")
    assert other.names() == {"a"}
    folder.write("b", b"")
    assert other.exists("b")
    assert other.names() == {"a", "b"}


def test_input_may_lie_where_there_are_only_objects() -> None:
    root = f"memory://{uuid.uuid4().hex}"
    with fsspec.open(f"{root}/in/a.jsonl", "wb") as file:
        file.write(b"{}\n")
    (found,) = find_files(f"{root}/in")
    assert (found.name, found.kind, found.size_bytes) == ("a.jsonl", "jsonl", 3)
    assert find_files(f"{root}/in/a.jsonl")[0].path == found.path

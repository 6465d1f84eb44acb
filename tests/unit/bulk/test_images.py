"""Images that rows name."""

import asyncio
import base64
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest
from lychee_bulk import images
from lychee_bulk.errors import RowError
from lychee_bulk.images import ImageReader
from lychee_client import Image

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def read(value: object, folder: str = "", hosts: tuple[str, ...] = ()) -> Image:
    async def run() -> Image:
        with ThreadPoolExecutor(1) as threads:
            reader = ImageReader(folder, hosts, threads)
            try:
                return await reader.read(value)
            finally:
                await reader.aclose()

    return asyncio.run(run())


def fail(value: object, folder: str = "", hosts: tuple[str, ...] = ()) -> tuple[str, str]:
    with pytest.raises(RowError) as caught:
        read(value, folder, hosts)
    return caught.value.kind, caught.value.message


def test_images_are_bytes_data_urls_and_paths(tmp_path: Path) -> None:
    (tmp_path / "猫.png").write_bytes(PNG)
    for value in (
        PNG,
        bytearray(PNG),
        f"data:image/png;base64,{base64.b64encode(PNG).decode()}",
        str(tmp_path / "猫.png"),
        "猫.png",
        f"file://{tmp_path}/猫.png",
    ):
        assert read(value, str(tmp_path)).to_file() == PNG


def test_a_relative_path_may_go_on_from_a_bucket() -> None:
    root = f"memory://{uuid.uuid4().hex}"
    with fsspec.open(f"{root}/photos/a.png", "wb") as file:
        file.write(PNG)
    assert read("photos/a.png", f"{root}/").to_file() == PNG


@pytest.mark.parametrize(
    ("value", "kind", "words"),
    [
        (5, "bad_value", "of type int; expected bytes, a path, or a URL"),
        ({"bytes": b""}, "bad_value", "of type dict"),
        ("", "bad_value", "of type str"),
        ("nowhere.png", "image_missing", "nowhere.png does not exist"),
        (".", "image_unreadable", "cannot be read"),
        ("a\0b", "image_unreadable", "cannot be read"),
        ("a\ud800.png", "image_unreadable", "cannot be read"),
        ("ftp://example.org/a.png", "bad_value", "at 'ftp'; expected a path, s3://"),
        ("https://example.org/a.png", "url_refused", "--image-host names the hosts"),
        ("data:image/png;base64,A", "invalid_input", "base64"),
    ],
)
def test_an_image_that_cannot_be_read_is_the_error_of_its_row(
    tmp_path: Path, value: object, kind: str, words: str
) -> None:
    found = fail(value, str(tmp_path))
    assert found[0] == kind
    assert words in found[1]


def test_an_image_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_IMAGE_BYTES", 50)
    (tmp_path / "a.png").write_bytes(PNG)
    assert fail("a.png", str(tmp_path))[0] == fail(PNG)[0] == "image_too_large"


def test_only_allowed_hosts_are_asked() -> None:
    kind, message = fail("http://images.example.org/a.png", hosts=("other.example.org",))
    assert kind == "url_failed"
    assert "images.example.org" in message
    assert fail("http://127.0.0.1/a.png", hosts=("127.0.0.1",))[0] == "url_failed"  # no address inside the network

"""What users type and upload, made into documents."""

from __future__ import annotations

from pathlib import Path

import pytest
from lychee_client import Image, ImageText, Text
from lychee_server.web.inputs import Item, Upload, check_readable, load_items, make_item, make_items, split_texts
from lychee_server.web.problems import PageError


@pytest.mark.parametrize(
    ("text", "documents"),
    [
        (None, []),
        (" \n\n", []),
        ("one\ntwo\r\n\n three ", ["one", "two", "three"]),
        ("one\ntwo\n---\nthree", ["one\ntwo", "three"]),
        ("---\none\n  -----  \n\n---\n", ["one"]),
        ("a --- b\nc", ["a --- b", "c"]),
    ],
)
def test_texts_are_split_at_lines_or_at_dashes(text: str | None, documents: list[str]) -> None:
    assert split_texts(text) == documents


def test_an_item_needs_a_text_or_an_image() -> None:
    with pytest.raises(PageError) as raised:
        make_item("  ", None, "score.error_no_query")
    assert raised.value.key == "score.error_no_query"


@pytest.mark.parametrize(
    ("texts", "images", "paired", "key"),
    [
        ([], 0, False, "rerank.error_no_documents"),
        (["a"], 2, True, "rerank.error_unpaired"),
        (["a", "b"], 2, False, "rerank.error_too_many"),
    ],
)
def test_documents_that_make_no_call_are_refused(texts: list[str], images: int, paired: bool, key: str) -> None:
    uploads = [Upload(f"{number}.png", Path("unused")) for number in range(images)]
    with pytest.raises(PageError) as raised:
        make_items(texts, uploads, paired, max_documents=3)
    assert raised.value.key == key


def test_pairs_keep_their_order() -> None:
    uploads = [Upload("1.png", Path("unused")), Upload("2.png", Path("unused"))]
    assert make_items(["a", "b"], uploads, True, 2) == [Item("a", uploads[0]), Item("b", uploads[1])]
    assert make_items(["a"], uploads, False, 3) == [Item("a"), Item(image=uploads[0]), Item(image=uploads[1])]


def test_images_are_loaded_with_thumbnails(photos: Path) -> None:
    cat = Upload("cat.jpg", photos / "cat.jpg")
    text, image, both = load_items([Item("a"), Item(image=cat), Item("a", cat)], most_mb=1)
    assert [type(entry.value) for entry in (text, image, both)] == [Text, Image, ImageText]
    assert text.thumbnail is None
    assert image.thumbnail is not None
    assert image.thumbnail.startswith("data:image/jpeg;base64,")
    assert len(image.thumbnail) < 20_000


def test_images_may_not_be_larger_than_a_request_altogether(tmp_path: Path) -> None:
    path = tmp_path / "large.bin"
    path.write_bytes(bytes(600_000))
    upload = Upload("large.bin", path)
    with pytest.raises(PageError) as raised:
        load_items([Item(image=upload), Item(image=upload)], most_mb=1)
    assert raised.value.key == "page.error_images_too_large"


def test_an_upload_that_was_cleaned_up_is_named(tmp_path: Path) -> None:
    with pytest.raises(PageError) as raised:
        load_items([Item(image=Upload("old.png", tmp_path / "gone.png"))], most_mb=1)
    assert (raised.value.key, raised.value.values["name"]) == ("page.error_upload_gone", "old.png")


def test_an_unreadable_image_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"no image")
    (loaded,) = load_items([Item(image=Upload("x.png", path))], most_mb=1)
    with pytest.raises(PageError) as raised:
        check_readable(loaded, "page.error_query_image")
    assert raised.value.values == {"name": "x.png"}

"""From what a user typed and uploaded to queries and documents."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import gradio as gr
from lychee_client import Image, ImageText, Text

from lychee_server.defaults import MIB
from lychee_server.web.problems import PageError
from lychee_server.web.thumbnail import make_thumbnail

MAX_NAME_CHARACTERS: Final = 120
_SEPARATOR: Final = re.compile(r"^[ \t]*-{3,}[ \t]*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Upload:
    """One uploaded file, not read yet.

    Attributes:
        name: What the user called it.
        path: Where it is; Gradio has checked that this is in the folder of the uploads.
    """

    name: str
    path: Path


@dataclass(frozen=True, slots=True)
class Item:
    """One query or document of the page; at least one of the two is there.

    Attributes:
        text: Its text, or None.
        image: Its image, or None.
    """

    text: str | None = None
    image: Upload | None = None


def make_image_field(label: str, elem_id: str) -> gr.Image:
    """Make a field for one image. Handlers get an Upload or None: Gradio does not decode it."""
    field = gr.Image(
        label=label,
        sources=["upload", "clipboard"],
        image_mode=None,
        height=180,
        buttons=[],
        elem_id=elem_id,
        elem_classes="upload",
    )
    field.preprocess = _to_image  # type: ignore[assignment,method-assign]  # a subclass would have Gradio write a .pyi beside it
    return field


def make_files_field(**options: Any) -> gr.File:
    """Make a field for files, with the options of gr.File. Handlers get a list of Uploads."""
    field = gr.File(**options)
    field.preprocess = _to_uploads  # type: ignore[assignment,method-assign]  # see above
    return field


def _to_image(payload: Any) -> Upload | None:
    return None if payload is None else _to_upload(payload)


def _to_uploads(payload: Any) -> list[Upload]:
    return [] if payload is None else [_to_upload(file) for file in getattr(payload, "root", [payload])]


def _to_upload(file: Any) -> Upload:
    return Upload((file.orig_name or Path(file.path).name)[:MAX_NAME_CHARACTERS], Path(file.path))


def make_item(text: str | None, image: Upload | None, missing_key: str) -> Item:
    """Return a query or a document that was entered in one box and one image field.

    Raises:
        PageError: Both are empty; `missing_key` names the text that says so.
    """
    text = (text or "").strip() or None
    if text is None and image is None:
        raise PageError(missing_key)
    return Item(text, image)


def split_texts(text: str | None) -> list[str]:
    """Return the documents of a text: its blocks between lines of `---`, or its lines where there is no such line.

    Empty ones are left out.
    """
    text = (text or "").replace("\r\n", "\n")
    parts = _SEPARATOR.split(text) if _SEPARATOR.search(text) else text.split("\n")
    return [part.strip() for part in parts if part.strip()]


def make_items(texts: Sequence[str], images: Sequence[Upload], paired: bool, max_documents: int) -> list[Item]:
    """Return the documents in the order in which they were entered.

    Args:
        texts: The texts that were entered.
        images: The images that were uploaded.
        paired: Whether text i and image i are one document. False: every text and every image is one.
        max_documents: The most documents that one call may have.

    Raises:
        PageError: There are none, too many, or not as many texts as images although they are pairs.
    """
    if not texts and not images:
        raise PageError("rerank.error_no_documents")
    if paired and len(texts) != len(images):
        raise PageError("rerank.error_unpaired", texts=len(texts), images=len(images))
    items = (
        [Item(text, image) for text, image in zip(texts, images, strict=True)]
        if paired
        else [*(Item(text) for text in texts), *(Item(image=image) for image in images)]
    )
    if len(items) > max_documents:
        raise PageError("rerank.error_too_many", count=len(items), most=max_documents)
    return items


@dataclass(frozen=True, slots=True)
class Loaded:
    """An item with its image in memory.

    Attributes:
        item: The item.
        value: The item as the SDK takes it.
        thumbnail: A small picture as a data URL, or None without an image, or where it cannot be read.
    """

    item: Item
    value: Text | Image | ImageText
    thumbnail: str | None


def load_items(items: Sequence[Item], most_mb: int) -> list[Loaded]:
    """Read the images and make the thumbnails. Takes a while: call it in a thread.

    Args:
        items: What the user entered.
        most_mb: The most that all images may take together, in 2**20 bytes.

    Raises:
        PageError: An image is no longer there, or they are too large.
    """
    loaded = []
    size_left_bytes = most_mb * MIB
    for item in items:
        if item.image is None:
            loaded.append(Loaded(item, Text(item.text or ""), None))
            continue
        data = _read(item.image)
        size_left_bytes -= len(data)
        if size_left_bytes < 0:
            raise PageError("page.error_images_too_large", name=item.image.name, most_mb=most_mb)
        image = Image.from_bytes(data)
        value = image if item.text is None else ImageText(image, item.text)
        loaded.append(Loaded(item, value, make_thumbnail(data)))
    return loaded


def _read(upload: Upload) -> bytes:
    try:
        return upload.path.read_bytes()
    except OSError as error:
        raise PageError("page.error_upload_gone", name=upload.name) from error


def check_readable(loaded: Loaded, key: str) -> None:
    """Refuse an item whose image cannot be read.

    Raises:
        PageError: With the text that `key` names; it is given the file's name.
    """
    if loaded.item.image is not None and loaded.thumbnail is None:
        raise PageError(key, name=loaded.item.image.name)

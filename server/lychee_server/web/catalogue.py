"""The example catalogue: photos, texts and pairs of both that come with the package."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lychee_server.web.examples import find_example
from lychee_server.web.inputs import Item, Upload


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The example documents.

    Attributes:
        items: The documents.
        queries: Texts to try.
    """

    items: Sequence[Item]
    queries: Sequence[str]


def load_catalogue() -> Catalogue | None:
    """Read the catalogue, or return None where it is not installed."""
    path = find_example("catalogue", "catalogue.json")
    if path is None:
        return None
    content = json.loads(path.read_text(encoding="utf-8"))
    return Catalogue(
        items=[_to_item(entry, path.parent / "photos") for entry in content["documents"]],
        queries=[entry["text"] for entry in content["queries"]],
    )


def _to_item(entry: dict[str, str], photos: Path) -> Item:
    photo = entry.get("photo")
    return Item(entry.get("text"), None if photo is None else Upload(photo, photos / photo))

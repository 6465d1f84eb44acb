"""The examples: a catalogue of photos and texts to rank, and labelled pairs to calibrate with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lychee_server.errors import InstallationError

__all__ = ["Catalogue", "CatalogueDocument", "find_example", "read_catalogue"]

FOLDERS: Final = (Path(__file__).parent / "bundled",)  # in the repository, links to examples/


@dataclass(frozen=True, slots=True)
class CatalogueDocument:
    """A document of the catalogue; at least one of the two is there.

    Attributes:
        text: What the document says, or None.
        photo: The path of a JPEG file, or None.
    """

    text: str | None
    photo: Path | None

    @property
    def source(self) -> str:
        """A line that tells people what the document is."""
        return " + ".join(part for part in (self.photo and self.photo.name, self.text) if part)


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The example catalogue.

    Attributes:
        documents: Ten photos, texts in Chinese and English, and photos with a text.
        queries: For each query, the path of the photo that fits it best.
    """

    documents: tuple[CatalogueDocument, ...]
    queries: Mapping[str, Path]


def find_example(*parts: str) -> Path | None:
    """Return the path of an example, or None where the examples are not installed."""
    return next((path for folder in FOLDERS if (path := folder.joinpath(*parts)).is_file()), None)


def read_catalogue() -> Catalogue:
    """Read the example catalogue.

    Raises:
        InstallationError: The catalogue is not installed.
    """
    path = find_example("catalogue", "catalogue.json")
    if path is None:
        raise InstallationError(
            f"The example catalogue is missing: expected catalogue/catalogue.json in {' or '.join(map(str, FOLDERS))}. "
            "Install lychee-rerank-server again."
        )
    content, photos = json.loads(path.read_text(encoding="utf-8")), path.parent / "photos"
    return Catalogue(
        documents=tuple(
            CatalogueDocument(entry.get("text"), photos / entry["photo"] if "photo" in entry else None)
            for entry in content["documents"]
        ),
        queries={entry["text"]: photos / entry["photo"] for entry in content["queries"]},
    )

"""The example catalogue as documents and queries of the SDK."""

from __future__ import annotations

import json
from pathlib import Path

from lychee_client import Image, ImageText, Text

__all__ = ["FOLDER", "Document", "load_documents", "load_queries"]

FOLDER = Path(__file__).parent / "catalogue"

Document = Text | Image | ImageText


def load_documents() -> tuple[list[Document], list[str]]:
    """Read the documents.

    Returns:
        The documents, and for each a line that tells people what it is.
    """
    documents: list[Document] = []
    sources = []
    for entry in _read()["documents"]:
        if "photo" not in entry:
            documents.append(Text(entry["text"]))
        else:
            image = Image.from_path(FOLDER / "photos" / entry["photo"])
            documents.append(ImageText(image, entry["text"]) if "text" in entry else image)
        sources.append(" + ".join(entry.values()))
    return documents, sources


def load_queries() -> dict[str, str]:
    """Read the queries: the fitting photo's file name by query text."""
    return {entry["text"]: entry["photo"] for entry in _read()["queries"]}


def _read() -> dict[str, list[dict[str, str]]]:
    catalogue: dict[str, list[dict[str, str]]] = json.loads((FOLDER / "catalogue.json").read_text(encoding="utf-8"))
    return catalogue

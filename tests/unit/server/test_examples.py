"""The example catalogue is read in one place, and its absence is told."""

from __future__ import annotations

import pytest
from lychee_server import examples
from lychee_server.errors import InstallationError
from lychee_server.examples import find_example, read_catalogue


def test_the_catalogue_has_photos_texts_and_pairs() -> None:
    catalogue = read_catalogue()
    kinds = [(document.text is not None, document.photo is not None) for document in catalogue.documents]
    assert (kinds.count((False, True)), kinds.count((True, False)), kinds.count((True, True))) == (10, 12, 5)
    assert all(document.photo.is_file() for document in catalogue.documents if document.photo is not None)
    assert len(catalogue.queries) == 6
    assert all(photo.is_file() for photo in catalogue.queries.values())
    assert {"temple.jpg + Tower of a Chinese palace above a lake.", "temple.jpg"} <= {
        document.source for document in catalogue.documents
    }


def test_missing_examples_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examples, "FOLDERS", ())
    assert find_example("calibration", "pairs.csv") is None
    with pytest.raises(InstallationError, match="Install lychee-rerank-server again"):
        read_catalogue()

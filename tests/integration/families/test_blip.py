"""BLIP end to end: checkpoint folder, export, Triton, client; scores compared with transformers."""

from collections.abc import Callable
from pathlib import Path

import pytest
from checkpoints.inputs import TEXTS, make_images
from checkpoints.reference import load_transformers
from lychee_client import Image, InvalidInputError, LycheeClient

pytestmark = pytest.mark.triton

SCORE_ATOL = 1e-4


def test_images_score_as_in_transformers_and_other_documents_are_refused(
    checkpoint_folder: Callable[[str], Path], serve: Callable[[str], LycheeClient]
) -> None:
    reference, client, images = load_transformers(checkpoint_folder("blip")), serve("blip"), make_images()
    assert client.check_golden_pairs().max_abs_error < SCORE_ATOL
    pictures = [Image.from_pil(image) for image in images]
    for query in (TEXTS[1], TEXTS[2]):
        response = client.rerank(query, [*pictures, "only a text"])
        expected = reference.match([query] * len(images), images)
        assert len(response.results) == len(images)
        for result in response.results:
            assert result.relevance_score == pytest.approx(float(expected[result.index]), abs=SCORE_ATOL)
        (error,) = response.errors
        assert error.index == len(images)
        assert "reads only images as a document" in str(error.error)
    with pytest.raises(InvalidInputError, match="reads only texts as a query"):
        client.rerank(pictures[0], pictures)

"""The Qwen-VL rerankers all the way: checkpoint folder, export, Triton, client, and the score of transformers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from checkpoints.qwen_vl_pairs import PAIRS_OF, SEVERAL_IMAGES_OF, to_input
from checkpoints.qwen_vl_reference import Part, QwenReranker
from lychee_client import LycheeClient

pytestmark = pytest.mark.triton

SCORE_ATOL = 1e-4


@pytest.mark.parametrize("name", sorted(PAIRS_OF))
def test_triton_scores_pairs_as_transformers(
    checkpoint_folder: Callable[[str], Path], serve: Callable[[str], LycheeClient], name: str
) -> None:
    client = serve(name)
    image: Any = client.manifest().image
    reference = QwenReranker(checkpoint_folder(name), image.min_pixels, image.max_pixels)
    for query, document in PAIRS_OF[name] + SEVERAL_IMAGES_OF.get(name, []):
        score = client.score(to_input(query), to_input(document))
        assert score == pytest.approx(reference.score(query, document), abs=SCORE_ATOL)
    query = Part("a red cup of coffee")
    documents = [document for _, document in PAIRS_OF[name]]
    response = client.rerank(to_input(query), [to_input(document) for document in documents])
    assert not response.errors
    expected = [reference.score(query, document) for document in documents]
    for result in response.results:
        assert result.relevance_score == pytest.approx(expected[result.index], abs=SCORE_ATOL)
    assert [result.index for result in response.results] == sorted(
        range(len(documents)), key=lambda index: (-expected[index], index)
    )
    assert client.check_golden_pairs().max_abs_error <= SCORE_ATOL


def test_monoqwen_refuses_texts_as_documents_and_ranks_the_images(serve: Callable[[str], LycheeClient]) -> None:
    client = serve("monoqwen")
    image = to_input(PAIRS_OF["monoqwen"][0][1])
    response = client.rerank("a cat", ["a text", image])
    assert [result.index for result in response.results] == [1]
    assert [error.index for error in response.errors] == [0]
    assert "reads only images as a document" in str(response.errors[0])

"""The Qwen-VL rerankers all the way: checkpoint folder, export, Triton, client, and the score of transformers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from checkpoints.qwen_vl_pairs import PAIRS_OF, SEVERAL_IMAGES_OF, WINDOWS, to_input
from checkpoints.qwen_vl_reference import Part, QwenReranker
from lychee_client import Chunking, Image, ImageText, LycheeClient

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


def test_long_document_has_the_score_of_its_best_chunk(serve: Callable[[str], LycheeClient]) -> None:
    client = serve("qwen2_5_vl")
    text = " ".join(f"number {number} of a cup of coffee, 第{number}杯咖啡。" for number in range(400))
    picture = Image.from_pil(WINDOWS)
    documents = [text, ImageText(picture, text), "a red cup"]
    response = client.rerank("a red cup of coffee", documents, chunking=Chunking(20, 4), max_tokens_per_doc=10_000)
    assert response.errors == ()
    for result in response.results:
        if result.index == 2:
            assert (result.chunk, result.truncated) == (None, False)
            continue
        assert result.chunk is not None
        assert result.truncated  # there are more than four chunks
        part = text[result.chunk.start : result.chunk.end]
        document = part if result.index == 0 else ImageText(picture, part)
        (alone,) = client.rerank("a red cup of coffee", [document]).results
        assert (alone.truncated, alone.tokens) == (False, result.tokens)
        assert alone.tokens is not None
        assert client.manifest().text.max_tokens - 40 < alone.tokens <= client.manifest().text.max_tokens
        assert alone.logit == pytest.approx(result.logit, abs=SCORE_ATOL)

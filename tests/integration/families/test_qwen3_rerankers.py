"""Qwen3-Rerankers end to end: checkpoint folder, export, Triton, client and REST; scores as in transformers."""

from collections.abc import Callable
from pathlib import Path

import pytest
from checkpoints.exports import LIMITS
from checkpoints.inputs import TEXTS
from checkpoints.qwen3_reference import Qwen3RerankerModel, load_qwen3_reranker
from lychee_client import LycheeClient
from lychee_server import TritonServer

from .text_pairs import (
    QUERIES,
    SCORE_ATOL,
    assert_labelled_queries_rank_as_in_transformers,
    assert_rest_gives_the_scores_of_transformers_and_refuses_an_image_alone,
    assert_texts_score_as_in_transformers_and_images_are_refused,
    url_of,
)

pytestmark = pytest.mark.triton


@pytest.fixture(scope="module")
def name() -> str:
    """Return the checkpoint's name."""
    return "qwen3_reranker"


@pytest.fixture(scope="module")
def reference(checkpoint_folder: Callable[[str], Path], name: str) -> Qwen3RerankerModel:
    """Load the checkpoint with transformers."""
    return load_qwen3_reranker(checkpoint_folder(name), LIMITS.max_tokens)


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_texts_score_as_in_transformers_and_images_are_refused(
    triton: TritonServer, reference: Qwen3RerankerModel, protocol: str
) -> None:
    assert_texts_score_as_in_transformers_and_images_are_refused(url_of(triton, protocol), reference)


def test_labelled_queries_rank_as_in_transformers(triton: TritonServer, reference: Qwen3RerankerModel) -> None:
    assert_labelled_queries_rank_as_in_transformers(triton.grpc_url, reference)


def test_rest_gives_the_scores_of_transformers_and_refuses_an_image_alone(
    triton: TritonServer, reference: Qwen3RerankerModel, tmp_path: Path
) -> None:
    assert_rest_gives_the_scores_of_transformers_and_refuses_an_image_alone(triton, reference, tmp_path)


def test_an_instruction_of_the_caller_is_read(triton: TritonServer, reference: Qwen3RerankerModel) -> None:
    instruction = "Find a text about animals."
    with LycheeClient(triton.grpc_url) as client:
        results = client.rerank(QUERIES[0], list(TEXTS), instruction=instruction).results
    logits = reference.compute_logits([(QUERIES[0], text) for text in TEXTS], instruction)
    plain = reference.compute_logits([(QUERIES[0], text) for text in TEXTS])
    assert float((logits - plain).abs().max()) > 100 * SCORE_ATOL
    for result in results:
        assert result.logit == pytest.approx(float(logits[result.index]), abs=SCORE_ATOL)

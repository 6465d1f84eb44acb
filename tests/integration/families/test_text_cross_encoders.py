"""Text cross-encoders end to end: checkpoint folder, export, Triton, client and REST; scores as in the original."""

from collections.abc import Callable
from pathlib import Path

import pytest
from checkpoints.exports import LIMITS
from checkpoints.pairs_reference import PairModel, load_pair_model
from lychee_server import TritonServer

from .text_pairs import (
    assert_labelled_queries_rank_as_in_transformers,
    assert_rest_gives_the_scores_of_transformers_and_refuses_an_image_alone,
    assert_texts_score_as_in_transformers_and_images_are_refused,
    url_of,
)

pytestmark = pytest.mark.triton


@pytest.fixture(
    scope="module",
    params=[
        "bert_reranker",
        "xlm_roberta_reranker",
        "modernbert_reranker",
        "jina_v2_reranker",
        "gte_multilingual_reranker",
        "deberta_reranker",
    ],
)
def name(request: pytest.FixtureRequest) -> str:
    """Return each checkpoint's name in turn."""
    return str(request.param)


@pytest.fixture(scope="module")
def reference(checkpoint_folder: Callable[[str], Path], name: str) -> PairModel:
    """Load the checkpoint with transformers, or as its authors' code does."""
    return load_pair_model(checkpoint_folder(name), LIMITS.max_tokens)


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_texts_score_as_in_transformers_and_images_are_refused(
    triton: TritonServer, reference: PairModel, protocol: str
) -> None:
    assert_texts_score_as_in_transformers_and_images_are_refused(url_of(triton, protocol), reference)


def test_labelled_queries_rank_as_in_transformers(triton: TritonServer, reference: PairModel) -> None:
    assert_labelled_queries_rank_as_in_transformers(triton.grpc_url, reference)


def test_rest_gives_the_scores_of_transformers_and_refuses_an_image_alone(
    triton: TritonServer, reference: PairModel, tmp_path: Path
) -> None:
    assert_rest_gives_the_scores_of_transformers_and_refuses_an_image_alone(triton, reference, tmp_path)

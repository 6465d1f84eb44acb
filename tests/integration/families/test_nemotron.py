"""Llama Nemotron text rerankers end to end: checkpoint folder, export, Triton, client and REST."""

from collections.abc import Callable
from pathlib import Path

import pytest
from checkpoints.exports import LIMITS
from checkpoints.nemotron_reference import NemotronTextModel, load_nemotron_text_model
from lychee_server import TritonServer

from .text_pairs import (
    assert_labelled_queries_rank_as_in_transformers,
    assert_rest_gives_the_scores_of_transformers_and_refuses_an_image_alone,
    assert_texts_score_as_in_transformers_and_images_are_refused,
    url_of,
)

pytestmark = pytest.mark.triton


@pytest.fixture(scope="module")
def name() -> str:
    """Return the checkpoint's name."""
    return "nemotron_reranker"


@pytest.fixture(scope="module")
def reference(checkpoint_folder: Callable[[str], Path], name: str) -> NemotronTextModel:
    """Load the checkpoint with transformers."""
    return load_nemotron_text_model(checkpoint_folder(name), LIMITS.max_tokens)


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_texts_score_as_in_transformers_and_images_are_refused(
    triton: TritonServer, reference: NemotronTextModel, protocol: str
) -> None:
    assert_texts_score_as_in_transformers_and_images_are_refused(url_of(triton, protocol), reference)


def test_labelled_queries_rank_as_in_transformers(triton: TritonServer, reference: NemotronTextModel) -> None:
    assert_labelled_queries_rank_as_in_transformers(triton.grpc_url, reference)


def test_rest_gives_the_scores_of_transformers_and_refuses_an_image_alone(
    triton: TritonServer, reference: NemotronTextModel, tmp_path: Path
) -> None:
    assert_rest_gives_the_scores_of_transformers_and_refuses_an_image_alone(triton, reference, tmp_path)

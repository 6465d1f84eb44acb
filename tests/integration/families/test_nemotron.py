"""Llama Nemotron text rerankers end to end: checkpoint folder, export, Triton, client and REST."""

from collections.abc import Callable, Iterator
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
def reference(checkpoint_folder: Callable[[str], Path]) -> NemotronTextModel:
    """Load the checkpoint with transformers."""
    return load_nemotron_text_model(checkpoint_folder("nemotron_reranker"), LIMITS.max_tokens)


@pytest.fixture(scope="module")
def triton(exported: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """Serve the export in float32, whatever the machine has."""
    ports = {"http_port": 0, "grpc_port": 0, "metrics_port": 0}
    log_path = tmp_path_factory.mktemp("triton") / "triton.log"
    with TritonServer(exported("nemotron_reranker"), config_name="cpu", **ports, log_path=log_path) as server:
        yield server


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

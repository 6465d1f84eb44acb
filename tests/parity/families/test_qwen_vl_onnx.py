"""The exported Qwen-VL rerankers against transformers: the ONNX files, and the client's preprocessing with them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from checkpoints.exports import LIMITS
from checkpoints.qwen_vl_pairs import PAIRS_OF, SEVERAL_IMAGES_OF, SQUARE, TINY, WIDE, to_input
from checkpoints.qwen_vl_reference import Part, QwenReranker
from lychee_client import LycheeClient
from lychee_export.verification.in_process import in_process_client

EMBEDDING_ATOL = 1e-5
SCORE_ATOL = 1e-4
RERANKERS = ["jina_m0", "qwen2_5_vl", "qwen3_vl"]
"""An export takes long: the encoders of monoqwen are those of jina_m0, and the integration tests export it, too."""


class Exported:
    """One repository: its files, and the client that uses them; and the checkpoint in transformers."""

    def __init__(self, folder: Path, repository: Path) -> None:
        self._repository = repository
        self._sessions: dict[str, onnxruntime.InferenceSession] = {}
        self.client: LycheeClient = in_process_client(repository)
        image: Any = self.client.manifest().image
        self.patch_bytes = 3 * int(image.patch_size) ** 2
        self.reference = QwenReranker(folder, image.min_pixels, image.max_pixels)

    def run(self, model: str, inputs: dict[str, torch.Tensor]) -> list[torch.Tensor]:
        """Run an ONNX file."""
        if model not in self._sessions:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1
            (path,) = self._repository.glob(f"{model}/*/model.onnx")
            self._sessions[model] = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        outputs = self._sessions[model].run(None, {name: value.numpy() for name, value in inputs.items()})
        return [torch.from_numpy(output) for output in outputs]


@pytest.fixture(scope="module")
def load(checkpoint_folder: Callable[[str], Path], exported: Callable[[str], Path]) -> Callable[[str], Exported]:
    """Return a function from a builder's name to the exported checkpoint."""
    loaded: dict[str, Exported] = {}

    def load_once(name: str) -> Exported:
        if name not in loaded:
            loaded[name] = Exported(checkpoint_folder(name), exported(name))
        return loaded[name]

    return load_once


@pytest.mark.parametrize("name", RERANKERS)
def test_files_equal_transformers_for_batches_of_one_to_seven(load: Callable[[str], Exported], name: str) -> None:
    exported = load(name)
    batches = [PAIRS_OF[name][7 - rows :] for rows in range(1, 8)]
    for pairs in [*batches, SEVERAL_IMAGES_OF[name], SEVERAL_IMAGES_OF[name][1:4]]:
        padding_side = ("left", "right")[len(pairs) % 2]
        batch = exported.reference.run(pairs, padding_side)
        pixel_values, grids = batch.pack_images(exported.patch_bytes, LIMITS.max_images)
        (embeds,) = exported.run("vision_encoder", {"pixel_values": pixel_values, "image_grid_thw": grids})
        tokens = {key: batch.inputs[key] for key in ("input_ids", "attention_mask")}
        (hidden,) = exported.run("text_encoder", tokens | {"image_embeds": embeds, "image_grid_thw": grids})
        scores, _ = exported.run("scoring_head", {"hidden": hidden})
        embedding_difference, hidden_difference, score_difference = batch.compare(embeds, hidden, scores[:, 0])
        assert embedding_difference <= EMBEDDING_ATOL
        assert hidden_difference <= EMBEDDING_ATOL
        assert score_difference <= SCORE_ATOL


@pytest.mark.parametrize("name", RERANKERS)
def test_the_client_scores_as_transformers_with_its_own_processor(load: Callable[[str], Exported], name: str) -> None:
    exported = load(name)
    for query, document in PAIRS_OF[name] + SEVERAL_IMAGES_OF[name]:
        score = exported.client.score(to_input(query), to_input(document))
        assert score == pytest.approx(exported.reference.score(query, document), abs=SCORE_ATOL)


@pytest.mark.parametrize("name", RERANKERS)
def test_the_order_of_a_documents_images_counts(load: Callable[[str], Exported], name: str) -> None:
    """Otherwise equal scores would say nothing of it."""
    reference = load(name).reference
    forward, backward = Part("猫", WIDE, (SQUARE,)), Part("猫", SQUARE, (WIDE,))
    assert abs(reference.score(Part("a cat"), forward) - reference.score(Part("a cat"), backward)) > 2 * SCORE_ATOL


@pytest.mark.parametrize("name", RERANKERS)
def test_several_images_among_other_documents_are_scored_as_by_transformers(
    load: Callable[[str], Exported], name: str
) -> None:
    exported, query = load(name), Part(None, TINY)
    documents = [document for _, document in SEVERAL_IMAGES_OF[name]]
    response = exported.client.rerank(to_input(query), [to_input(document) for document in documents])
    (failed,) = response.errors
    assert len(documents[failed.index].images) == LIMITS.max_images
    assert "--max-images 4" in failed.message
    for result in response.results:
        expected = exported.reference.score(query, documents[result.index])
        assert result.relevance_score == pytest.approx(expected, abs=SCORE_ATOL)


@pytest.mark.parametrize("provider", ["CPUExecutionProvider", "OpenVINOExecutionProvider"])
@pytest.mark.parametrize("name", RERANKERS)
def test_head_gives_no_score_for_states_that_are_no_numbers(
    exported: Callable[[str], Path], name: str, provider: str
) -> None:
    (path,) = exported(name).glob("scoring_head/*/model.onnx")
    session = onnxruntime.InferenceSession(path, providers=[provider])
    hidden = np.ones((4, session.get_inputs()[0].shape[1]), np.float32)
    hidden[1], hidden[2, 3] = np.nan, np.inf
    for output in session.run(None, {"hidden": hidden}):
        assert np.isfinite(output[[0, 3]]).all()
        assert np.isnan(output[1]).all()
    logits = session.run(["logits"], {"hidden": hidden})[0]
    assert not np.isfinite(logits[2]).any()


@pytest.mark.parametrize("name", RERANKERS)
def test_texts_up_to_the_limit_are_scored_as_by_transformers(load: Callable[[str], Exported], name: str) -> None:
    exported = load(name)
    query = Part("一只猫")
    documents = [Part("a"), exported.reference.pad_to(query, "火箭 rockets ", LIMITS.max_tokens)]
    response = exported.client.rerank(to_input(query), [to_input(document) for document in documents])
    lengths = {result.index: result.tokens for result in response.results}
    assert lengths[1] is not None
    assert LIMITS.max_tokens - 10 < lengths[1] <= LIMITS.max_tokens
    for result in response.results:
        assert not result.truncated
        expected = exported.reference.score(query, documents[result.index])
        assert result.relevance_score == pytest.approx(expected, abs=SCORE_ATOL)


def test_the_score_of_a_row_does_not_move_with_its_buckets(load: Callable[[str], Exported]) -> None:
    exported = load("qwen2_5_vl")
    batch = exported.reference.run(PAIRS_OF["qwen2_5_vl"][:3], "right")
    hidden = []
    for patches, tokens in ((512, 0), (768, 101)):
        pixel_values, grids = batch.pack_images(exported.patch_bytes, LIMITS.max_images, patches)
        (embeds,) = exported.run("vision_encoder", {"pixel_values": pixel_values, "image_grid_thw": grids})
        padded = {
            key: torch.nn.functional.pad(batch.inputs[key], (0, tokens)) for key in ("input_ids", "attention_mask")
        }
        hidden += exported.run("text_encoder", padded | {"image_embeds": embeds, "image_grid_thw": grids})
    np.testing.assert_allclose(hidden[0], hidden[1], rtol=0, atol=2e-6)


@pytest.mark.parametrize("name", RERANKERS)
def test_golden_pairs_pass_within_the_tolerance_of_scores(load: Callable[[str], Exported], name: str) -> None:
    assert load(name).client.check_golden_pairs().max_abs_error <= SCORE_ATOL

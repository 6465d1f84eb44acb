"""BLIP image-text matching against its transformers model: the client's inputs into modules and ONNX files."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import PIL.Image
import pytest
import torch
from checkpoints.blip import build_blip
from checkpoints.inputs import TEXTS, make_images
from checkpoints.reference import TransformersModel, load_transformers
from lychee_client import Image
from lychee_client.preprocessing.prompt import Part, PromptProcessor
from lychee_client.preprocessing.text import TokenizedText
from lychee_export.contract.signature import ModelSignature, Tensors
from lychee_export.families import Checkpoint, load_checkpoint
from lychee_export.onnx.runtime import run_model

from .torch_modules import run_module

HIDDEN_ATOL = 1e-5
SCORE_ATOL = 1e-4

Run = Callable[[ModelSignature, Tensors], Tensors]


class Loaded:
    """The checkpoint: in transformers, in the exporter's modules, and with the client's preprocessing."""

    def __init__(self, folder: Path) -> None:
        self.reference: TransformersModel = load_transformers(folder)
        self.checkpoint: Checkpoint = load_checkpoint(str(folder))
        self.modules = {piece.signature.name: piece.module for piece in self.checkpoint.pieces}
        card = self.checkpoint.card
        self.image_spec = card.spec.image
        assert card.spec.prompt is not None
        self.prompts = PromptProcessor(card.tokenizer_json, card.spec.text, card.spec.prompt)

    def make_rows(self, texts: Sequence[str], images: Sequence[PIL.Image.Image]) -> Tensors:
        """Tokenize and preprocess with the client."""
        tokenized = [self.prompts.tokenize(self.prompts.make_frame(Part(text), None), [Part(None)]) for text in texts]
        rows = [row for (row,) in tokenized if isinstance(row, TokenizedText)]
        pixels = np.stack([Image.from_pil(image).prepare(self.image_spec).pixel_values for image in images])
        return {**self.prompts.to_tensors(rows), "pixel_values": pixels}

    def run(self, signature: ModelSignature, tensors: Tensors) -> Tensors:
        """Run a torch module."""
        return run_module(self.modules[signature.name], signature, tensors)

    def run_all(self, run: Run, rows: Tensors) -> Tensors:
        """Run the ensemble's models in order and return every tensor."""
        (ensemble,) = self.checkpoint.card.ensembles
        tensors = dict(rows)
        for step in ensemble.steps:
            tensors |= run(step, tensors)
        return tensors


@pytest.fixture(scope="module")
def loaded(checkpoint_folder: Callable[[str], Path]) -> Loaded:
    """Build and load the checkpoint."""
    return Loaded(checkpoint_folder("blip"))


@pytest.fixture(scope="module")
def sessions(exported: Callable[[str], Path]) -> dict[str, onnxruntime.InferenceSession]:
    """Export the checkpoint and open its files in ONNX Runtime."""
    return {
        path.parent.parent.name: onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        for path in exported("blip").glob("*/*/model.onnx")
        if path.parent.parent.name != "client_assets"
    }


def assert_pairs_equal(loaded: Loaded, run: Run) -> None:
    images, texts = make_images(), [*TEXTS[:-1], "the cat"]
    for batch in range(1, 8):
        rows = loaded.make_rows(texts[-batch:], images[-batch:])
        seen = loaded.run_all(run, rows)
        pixels = loaded.reference.processor(images[-batch:], return_tensors="pt")["pixel_values"]
        inputs = loaded.reference.tokenize(texts[-batch:])
        with torch.no_grad():
            expected = loaded.reference.model(**inputs, pixel_values=pixels)
        torch.testing.assert_close(
            torch.from_numpy(seen["hidden"]), expected.question_embeds[:, 0], atol=HIDDEN_ATOL, rtol=0
        )
        scores = expected.itm_score.softmax(-1)[:, 1:]
        torch.testing.assert_close(torch.from_numpy(seen["relevance_score"]), scores, atol=SCORE_ATOL, rtol=0)
    assert float(scores.max() - scores.min()) > 100 * SCORE_ATOL


def test_pairs_equal_transformers_for_every_batch(loaded: Loaded) -> None:
    assert_pairs_equal(loaded, loaded.run)


def test_onnx_pairs_equal_transformers_for_every_batch(
    loaded: Loaded, sessions: dict[str, onnxruntime.InferenceSession]
) -> None:
    assert_pairs_equal(loaded, lambda signature, tensors: run_model(sessions[signature.name], signature, tensors))


def test_text_of_the_longest_length_is_scored(
    loaded: Loaded, sessions: dict[str, onnxruntime.InferenceSession]
) -> None:
    limit = loaded.checkpoint.card.spec.text.max_tokens
    text, image = "cat " * (limit - 2), make_images()[1]
    rows = loaded.make_rows([text], [image])
    assert rows["attention_mask"].sum() == limit
    (ensemble,) = loaded.checkpoint.card.ensembles
    tensors = dict(rows)
    for step in ensemble.steps:
        tensors |= run_model(sessions[step.name], step, tensors)
    score = tensors["relevance_score"]
    assert float(score[0, 0]) == pytest.approx(float(loaded.reference.match([text], [image])), abs=SCORE_ATOL)


def test_client_makes_the_pixels_of_the_image_processor(loaded: Loaded) -> None:
    images = make_images()
    expected = loaded.reference.processor(images, do_rescale=False, do_normalize=False, return_tensors="np")
    pixels = loaded.make_rows(["a"], images)["pixel_values"]
    np.testing.assert_array_equal(pixels, np.stack(list(expected["pixel_values"])).astype(np.uint8))


def test_logits_are_match_minus_no_match(loaded: Loaded) -> None:
    images = make_images()
    logits = loaded.run_all(loaded.run, loaded.make_rows(TEXTS[:6], images[:6]))["logits"]
    scores = loaded.reference.match(TEXTS[:6], images[:6])
    np.testing.assert_allclose(logits[:, 0], torch.logit(scores.double()).numpy(), atol=4 * SCORE_ATOL)


def test_golden_pairs_have_the_scores_of_transformers(loaded: Loaded) -> None:
    pairs = loaded.checkpoint.make_reference().golden_pairs
    for pair in pairs:
        assert pair.query.text is not None
        assert pair.document.image_png is not None
        expected = loaded.reference.match([pair.query.text], [PIL.Image.open(io.BytesIO(pair.document.image_png))])
        assert pair.relevance_score == pytest.approx(float(expected), abs=SCORE_ATOL)
    scores = [pair.relevance_score for pair in pairs]
    assert max(scores) - min(scores) > 0.1


def break_normalization(loaded: Loaded) -> None:
    loaded.modules["vision_encoder"].normalization.std *= 1.1


def swap_the_head_rows(loaded: Loaded) -> None:
    loaded.modules["scoring_head"].weight.neg_()
    loaded.modules["scoring_head"].bias.neg_()


def see_the_padding(loaded: Loaded) -> None:
    inner = loaded.modules["text_encoder"].text_encoder
    forward = inner.forward
    inner.forward = lambda attention_mask, **rest: forward(attention_mask=torch.zeros_like(attention_mask), **rest)


def skip_the_image(loaded: Loaded) -> None:
    inner = loaded.modules["text_encoder"].text_encoder
    forward = inner.forward
    inner.forward = lambda encoder_hidden_states, **rest: forward(**rest)


@pytest.mark.parametrize("mutate", [break_normalization, swap_the_head_rows, see_the_padding, skip_the_image])
def test_mutation_breaks_the_comparison(tmp_path: Path, mutate: Callable[[Loaded], None]) -> None:
    loaded = Loaded(build_blip(tmp_path))
    mutate(loaded)
    with pytest.raises(AssertionError, match="Tensor-likes are not close"):
        assert_pairs_equal(loaded, loaded.run)

"""Every dual encoder against its transformers model: the client's inputs into the exporter's modules and ONNX files."""

import io
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import onnxruntime
import PIL.Image
import pytest
import torch
from checkpoints import BUILDERS
from checkpoints.clip import build_clip
from checkpoints.inputs import TEXTS, make_images
from checkpoints.reference import TransformersModel, load_transformers
from checkpoints.siglip import build_siglip2_naflex
from lychee_client import Image
from lychee_client.preprocessing.text import TextProcessor
from lychee_export.contract.signature import Tensors
from lychee_export.families import Checkpoint, load_checkpoint
from lychee_export.families.clip import IMAGE_CENTRE
from lychee_export.families.dual_encoder import TEXT_CENTRE
from numpy.typing import NDArray

from .torch_modules import run_module

EMBEDDING_ATOL = 1e-5
SCORE_ATOL = 1e-4

VARIANTS = {
    "clip_legacy_eos": lambda folder: build_clip(folder, legacy_eos=True),
    "siglip2_left": lambda folder: build_siglip2_naflex(folder, padding_side="left"),
}
DUAL_ENCODERS = ["clip", "clip_legacy_eos", "chinese_clip", "siglip", "siglip2", "siglip2_naflex", "siglip2_left"]
EXPORTED = ["clip", "siglip2_naflex"]
CLIPS = DUAL_ENCODERS[:3]
FIXED = DUAL_ENCODERS[:5]

Run = Callable[[str, Tensors], Tensors]


class Loaded:
    """One checkpoint: in transformers, in the exporter's modules, and with the client's preprocessing."""

    def __init__(self, folder: Path) -> None:
        self.reference: TransformersModel = load_transformers(folder)
        self.checkpoint: Checkpoint = load_checkpoint(str(folder))
        self.modules = {piece.signature.name: piece.module for piece in self.checkpoint.pieces}
        card = self.checkpoint.card
        self.image_spec = card.spec.image
        self.texts = TextProcessor(card.tokenizer_json, card.spec.text)
        self.scale = float(self.reference.model.logit_scale.detach().exp())

    def run(self, name: str, inputs: Tensors) -> Tensors:
        """Run a torch module."""
        piece = next(piece for piece in self.checkpoint.pieces if piece.signature.name == name)
        return run_module(piece.module, piece.signature, inputs)

    def embed_texts(self, run: Run, texts: Sequence[str]) -> torch.Tensor:
        """Tokenize and pad with the client."""
        tensors = self.texts.to_tensors(self.texts.tokenize_documents(texts))
        return torch.from_numpy(run("text_encoder", dict(tensors))["text_embedding"])

    def embed_images(self, run: Run, images: Sequence[PIL.Image.Image]) -> torch.Tensor:
        """Preprocess with the client."""
        return torch.from_numpy(run("vision_encoder", {"pixel_values": self.pixels(images)})["image_embedding"])

    def pixels(self, images: Sequence[PIL.Image.Image]) -> NDArray[np.uint8]:
        """Preprocess with the client: uint8, (num_images, 3, height, width)."""
        return np.stack([Image.from_pil(image).prepare(self.image_spec).pixel_values for image in images])

    def squared(self, images: Sequence[PIL.Image.Image]) -> list[PIL.Image.Image]:
        """Return the images as they are, or stretched for a NaFlex model, which would keep their aspect ratio."""
        if self.reference.model.config.model_type != "siglip2":
            return list(images)
        return [PIL.Image.fromarray(pixels.transpose(1, 2, 0)) for pixels in self.pixels(images)]


@pytest.fixture(scope="session")
def load(checkpoint_folder: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Loaded]:
    """Build and load a checkpoint, once per name."""

    @cache
    def load_once(name: str) -> Loaded:
        if name in VARIANTS:
            return Loaded(VARIANTS[name](tmp_path_factory.mktemp(name)))
        return Loaded(checkpoint_folder(name))

    return load_once


@pytest.fixture(scope="session")
def open_onnx(load: Callable[[str], Loaded], exported: Callable[[str], Path]) -> Callable[[str], Run]:
    """Export a checkpoint, once per name, and run its files in ONNX Runtime."""

    @cache
    def open_sessions(name: str) -> Run:
        sessions = {}
        for piece in load(name).checkpoint.pieces:
            (path,) = (exported(name) / piece.signature.name).glob("*/model.onnx")
            sessions[piece.signature.name] = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

        def run(model: str, inputs: Tensors) -> Tensors:
            outputs = [output.name for output in sessions[model].get_outputs()]
            return dict(zip(outputs, sessions[model].run(outputs, inputs), strict=True))

        return run

    return open_sessions


def assert_embeddings_equal(loaded: Loaded, run: Run) -> None:
    images = make_images()
    for batch in range(1, 8):
        expected = loaded.reference.embed(TEXTS[-batch:], loaded.squared(images[-batch:]))
        texts, pictures = loaded.embed_texts(run, TEXTS[-batch:]), loaded.embed_images(run, images[-batch:])
        torch.testing.assert_close(texts, expected.texts, atol=EMBEDDING_ATOL, rtol=0)
        torch.testing.assert_close(pictures, expected.images, atol=EMBEDDING_ATOL, rtol=0)


def score_pairs(loaded: Loaded, run: Run, query: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return logits, (7, 1) each, of the text documents, the image documents and the documents with both."""
    texts, images = loaded.embed_texts(run, TEXTS).numpy(), loaded.embed_images(run, make_images()).numpy()
    asked = np.repeat(loaded.embed_texts(run, [query]).numpy(), len(TEXTS), axis=0)
    parts: Tensors = {"query_embedding": asked, "text_embedding": texts, "image_embedding": images}
    outputs = run("scoring_heads", parts)
    logits = []
    for modality in ("text", "image", "image_text"):
        own = outputs[f"{modality}_logits"]
        np.testing.assert_allclose(outputs[f"{modality}_relevance_score"], 1 / (1 + np.exp(-own)), atol=1e-6)
        logits.append(torch.from_numpy(own))
    return logits[0], logits[1], logits[2]


def expected_logits(loaded: Loaded, query: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what transformers says of the text documents and the image documents, (7, 1) each."""
    embeddings = loaded.reference.embed([query, *TEXTS], loaded.squared(make_images()))
    images = embeddings.logits_per_image[:, :1]
    if loaded.reference.model.config.model_type in ("clip", "chinese_clip"):
        images = images - loaded.scale * IMAGE_CENTRE
    cosines = embeddings.texts[1:] @ embeddings.texts[:1].T
    return loaded.scale * (cosines - TEXT_CENTRE), images


@pytest.mark.parametrize("name", DUAL_ENCODERS)
def test_embeddings_equal_transformers_for_every_batch(load: Callable[[str], Loaded], name: str) -> None:
    loaded = load(name)
    assert_embeddings_equal(loaded, loaded.run)


@pytest.mark.parametrize("name", EXPORTED)
def test_onnx_embeddings_equal_transformers_for_every_batch(
    load: Callable[[str], Loaded], open_onnx: Callable[[str], Run], name: str
) -> None:
    assert_embeddings_equal(load(name), open_onnx(name))


@pytest.mark.parametrize("query", ["a yellow flower", "一只猫"])
@pytest.mark.parametrize("name", DUAL_ENCODERS)
def test_scores_follow_from_the_logits_of_transformers(load: Callable[[str], Loaded], name: str, query: str) -> None:
    loaded = load(name)
    texts, images, both = score_pairs(loaded, loaded.run, query)
    expected_texts, expected_images = expected_logits(loaded, query)
    for logits, expected in (
        (texts, expected_texts),
        (images, expected_images),
        (both, (expected_texts + expected_images) / 2),
    ):
        torch.testing.assert_close(logits, expected, atol=4 * SCORE_ATOL, rtol=0)
        torch.testing.assert_close(logits.sigmoid(), expected.sigmoid(), atol=SCORE_ATOL, rtol=0)
        assert float(expected.sigmoid().max() - expected.sigmoid().min()) > 100 * SCORE_ATOL


@pytest.mark.parametrize("name", EXPORTED)
def test_onnx_scores_follow_from_the_logits_of_transformers(
    load: Callable[[str], Loaded], open_onnx: Callable[[str], Run], name: str
) -> None:
    loaded = load(name)
    texts, images, _ = score_pairs(loaded, open_onnx(name), TEXTS[1])
    for logits, expected in zip((texts, images), expected_logits(loaded, TEXTS[1]), strict=True):
        torch.testing.assert_close(logits.sigmoid(), expected.sigmoid(), atol=SCORE_ATOL, rtol=0)


@pytest.mark.parametrize("name", FIXED)
def test_client_makes_the_pixels_of_the_image_processor(load: Callable[[str], Loaded], name: str) -> None:
    loaded, images = load(name), make_images()
    reference = loaded.reference.processor(images, do_rescale=False, do_normalize=False, return_tensors="np")
    np.testing.assert_array_equal(loaded.pixels(images), np.stack(list(reference["pixel_values"])).astype(np.uint8))


@pytest.mark.parametrize("name", DUAL_ENCODERS)
def test_golden_pairs_have_the_scores_of_transformers(load: Callable[[str], Loaded], name: str) -> None:
    loaded = load(name)
    with_images = 0
    for pair in loaded.checkpoint.make_reference().golden_pairs:
        if pair.document.text is None:
            images = loaded.squared([PIL.Image.open(io.BytesIO(pair.document.image_png))])
            logits = loaded.reference.embed([pair.query.text], images).logits_per_image
            if name in CLIPS:
                logits = logits - loaded.scale * IMAGE_CENTRE
            assert float(logits.sigmoid()) == pytest.approx(pair.relevance_score, abs=SCORE_ATOL)
            with_images += 1
    assert with_images == 4


def break_normalization(loaded: Loaded) -> None:
    loaded.modules["vision_encoder"].normalization.mean += 0.05


def forget_the_end_token(loaded: Loaded) -> None:
    loaded.modules["text_encoder"].eos_token_id = -1


def forget_the_legacy_end_token(loaded: Loaded) -> None:
    loaded.modules["text_encoder"].eos_token_id = 1


def see_everything(loaded: Loaded) -> None:
    inner = loaded.modules["text_encoder"].text_model
    forward = inner.forward
    inner.forward = lambda input_ids, attention_mask: forward(input_ids, torch.zeros_like(attention_mask))


def pad_with_another_token(loaded: Loaded) -> None:
    loaded.modules["text_encoder"].pad_token_id = 3


def pad_on_the_other_side(loaded: Loaded) -> None:
    encoder = loaded.modules["text_encoder"]
    encoder.pad_left = not encoder.pad_left


def transpose_the_positions(loaded: Loaded) -> None:
    encoder = loaded.modules["vision_encoder"]
    square = encoder.positions.reshape(encoder.grid, encoder.grid, -1)
    encoder.positions = torch.nn.Buffer(square.transpose(0, 1).reshape(encoder.positions.shape))


@pytest.mark.parametrize(
    ("name", "mutate"),
    [
        ("clip", break_normalization),
        ("clip", forget_the_end_token),
        ("clip", see_everything),
        ("clip_legacy_eos", forget_the_legacy_end_token),
        ("chinese_clip", break_normalization),
        ("chinese_clip", see_everything),
        ("siglip", break_normalization),
        ("siglip", pad_with_another_token),
        ("siglip2_left", pad_on_the_other_side),
        ("siglip2_naflex", break_normalization),
        ("siglip2_naflex", pad_on_the_other_side),
        ("siglip2_naflex", transpose_the_positions),
    ],
)
def test_mutation_breaks_the_comparison(tmp_path: Path, name: str, mutate: Callable[[Loaded], None]) -> None:
    loaded = Loaded((BUILDERS | VARIANTS)[name](tmp_path))
    mutate(loaded)
    with pytest.raises(AssertionError, match="Tensor-likes are not close"):
        assert_embeddings_equal(loaded, loaded.run)


def test_siglip_reads_only_the_pad_token_where_the_mask_is_zero(load: Callable[[str], Loaded]) -> None:
    loaded = load("siglip")
    tensors = loaded.texts.to_tensors(loaded.texts.tokenize_documents(TEXTS[:3]))
    garbage = np.where(tensors["attention_mask"] > 0, tensors["input_ids"], 7)
    expected = loaded.run("text_encoder", dict(tensors))["text_embedding"]
    seen = loaded.run("text_encoder", {**tensors, "input_ids": garbage})["text_embedding"]
    np.testing.assert_array_equal(seen, expected)


@pytest.mark.parametrize("name", ["siglip", "siglip2", "siglip2_naflex"])
@pytest.mark.parametrize(
    "text",
    ["Hello, World!", "一只猫，在 SOFA 上。", "don't-stop_me (now) -- 50% <b>", "a\tb\n\nc  d", "▁the▁cat", *TEXTS],
)
def test_client_tokenizes_as_the_reference_tokenizer(load: Callable[[str], Loaded], name: str, text: str) -> None:
    loaded = load(name)
    tensors = loaded.texts.to_tensors(loaded.texts.tokenize_documents([text]))
    padding = 1 if name == "siglip" else 0
    ids = np.where(tensors["attention_mask"] > 0, tensors["input_ids"], padding)
    np.testing.assert_array_equal(ids, loaded.reference.tokenize([text])["input_ids"].numpy())

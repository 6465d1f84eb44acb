"""Llama Nemotron VL against transformers: the client's inputs into modules and ONNX files."""

import io
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from checkpoints import BUILDERS
from checkpoints.exports import LIMITS
from checkpoints.inputs import TEXTS, make_images
from checkpoints.nemotron import TILE_SIZE, build_nemotron_vl_reranker
from checkpoints.nemotron_vl_reference import Document, NemotronVLModel, choose_grid, load_nemotron_vl_model
from lychee_client import Image
from lychee_client._pipelines.image_tensors import pack_images
from lychee_client.manifest import TileSpec
from lychee_client.preprocessing.image import PreparedImage
from lychee_client.preprocessing.prompt import Part, PromptProcessor
from lychee_client.preprocessing.text import TokenizedText
from lychee_export.contract.signature import ModelSignature, Tensors
from lychee_export.families import Checkpoint, load_checkpoint
from lychee_export.onnx.runtime import run_model
from msgspec import structs
from PIL import Image as PilImage
from safetensors.torch import load_file, save_file

from .text_pairs import assert_static_int8_is_refused, export_in
from .torch_modules import run_module

SCORE_ATOL = 1e-4
LOGIT_ATOL = 1e-4
QUERY = "the yellow cat"
LONG_TEXT = "the unbelievable, uncharacteristic cats sleep; 小猫喜欢晒太阳! " * 100

Run = Callable[[ModelSignature, Tensors], Tensors]


class Loaded:
    """A checkpoint: in transformers, in the exporter's modules, and with the client's preprocessing."""

    def __init__(self, folder: Path) -> None:
        self.reference: NemotronVLModel = load_nemotron_vl_model(folder, LIMITS.max_tokens or 0)
        self.checkpoint: Checkpoint = load_checkpoint(str(folder), LIMITS)
        self.modules: dict[str, Any] = {piece.signature.name: piece.module for piece in self.checkpoint.pieces}
        self.ensembles = {ensemble.name: ensemble for ensemble in self.checkpoint.card.ensembles}
        self.change_prompt()

    @property
    def spec(self) -> TileSpec:
        """How the client makes tiles."""
        spec = self.checkpoint.card.spec.image
        assert isinstance(spec, TileSpec)
        return spec

    def change_prompt(self, **changes: Any) -> None:
        """Have the client fill another prompt."""
        card = self.checkpoint.card
        assert card.spec.prompt is not None
        prompt = structs.replace(card.spec.prompt, **changes)
        self.prompts = PromptProcessor(card.tokenizer_json, card.spec.text, prompt)

    def prepare(self, query: str, document: Document) -> tuple[TokenizedText, list[PreparedImage]]:
        """Prepare a pair with the client."""
        text, image = document
        prepared = [] if image is None else [Image.from_pil(image).prepare(self.spec)]
        part = Part(text, [each.tokens for each in prepared if each.tokens is not None])
        (row,) = self.prompts.tokenize(self.prompts.make_frame(Part(query), None), [part])
        assert isinstance(row, TokenizedText), row
        return row, prepared

    def run(self, signature: ModelSignature, tensors: Tensors) -> Tensors:
        """Run a torch module."""
        return run_module(self.modules[signature.name], signature, tensors)

    def run_all(self, run: Run, query: str, documents: Sequence[Document]) -> Tensors:
        """Prepare as the client does, run the models in order and return every tensor.

        Args:
            run: Runs a model.
            query: The query.
            documents: Texts alone, or documents whose images have equally many tiles.
        """
        pairs = [self.prepare(query, document) for document in documents]
        tensors: Tensors = {**self.prompts.to_tensors([row for row, _ in pairs])}
        images = [pack_images(prepared, self.spec)["pixel_values"] for _, prepared in pairs if prepared]
        ensemble = self.ensembles["rerank_image" if images else "rerank_text"]
        if images:
            tensors["pixel_values"] = np.concatenate(images)
        else:
            tensors["image_embeds"] = np.zeros((len(pairs), 1, self.spec.embedding_dim), np.float32)
        for step in ensemble.steps:
            tensors |= run(step, tensors)
        return tensors


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    """Build and load a checkpoint."""
    return Loaded(BUILDERS["nemotron_vl_reranker"](tmp_path_factory.mktemp("nemotron") / "nemotron_vl_reranker"))


@pytest.fixture
def run_onnx(exported: Callable[[str], Path]) -> Run:
    """Export the checkpoint and run its files in ONNX Runtime."""
    sessions = {
        path.parent.parent.name: onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        for path in exported("nemotron_vl_reranker").glob("*/*/model.onnx")
        if path.parent.parent.name != "client_assets"
    }
    return lambda signature, tensors: run_model(sessions[signature.name], signature, tensors)


def make_batches() -> list[list[Document]]:
    """Return batches of 1 to 7: of texts, of images of equally many tiles, and of these with texts."""
    texts: list[Document] = [(text, None) for text in TEXTS]
    pictures = [image.resize((150, 100)) for image in make_images()]  # six tiles and the whole
    images: list[Document] = [(None, image) for image in pictures]
    both: list[Document] = list(zip(TEXTS, pictures, strict=True))
    return [kind[-batch:] for kind in (texts, images, both) for batch in range(1, 8)]


def assert_equal(loaded: Loaded, run: Run, documents: Sequence[Document]) -> torch.Tensor:
    seen = loaded.run_all(run, QUERY, documents)
    assert seen["relevance_score"].shape == seen["logits"].shape == (len(documents), 1)
    logits = loaded.reference.compute_logits(QUERY, documents)
    scores = torch.from_numpy(seen["relevance_score"])[:, 0]
    torch.testing.assert_close(scores, logits.sigmoid(), atol=SCORE_ATOL, rtol=0)
    torch.testing.assert_close(torch.from_numpy(seen["logits"])[:, 0], logits, atol=LOGIT_ATOL, rtol=0)
    return scores


def assert_pairs_equal(loaded: Loaded, run: Run) -> None:
    for documents in make_batches():
        scores = assert_equal(loaded, run, documents)
        assert len(documents) < 7 or float(scores.max() - scores.min()) > 100 * SCORE_ATOL


def test_pairs_equal_transformers_for_every_batch(loaded: Loaded) -> None:
    assert_pairs_equal(loaded, loaded.run)


def test_onnx_pairs_equal_transformers_for_every_batch(loaded: Loaded, run_onnx: Run) -> None:
    assert_pairs_equal(loaded, run_onnx)


def test_images_of_every_shape_score_as_in_transformers(loaded: Loaded, run_onnx: Run) -> None:
    counts = set()
    for image in make_images():
        assert_equal(loaded, run_onnx, [("a", image)])
        counts.add(len(loaded.reference.cut(image)))
    assert counts == {1, 5, 6, 7}


def test_tiles_are_those_of_the_checkpoints_processor_to_the_bit(loaded: Loaded) -> None:
    for image in [*make_images(), *(image.resize((150, 100)) for image in make_images(1))]:
        prepared = Image.from_pil(image).prepare(loaded.spec)
        expected = [np.asarray(tile).transpose(2, 0, 1) for tile in loaded.reference.cut(image)]
        np.testing.assert_array_equal(prepared.pixel_values, np.stack(expected))
        assert prepared.tokens == 4 * len(expected) == Image.from_pil(image).count_tokens(loaded.spec)


@pytest.mark.parametrize("edge", [TILE_SIZE, 512])
def test_grids_are_those_of_the_checkpoints_processor_for_every_shape(edge: int) -> None:
    spec = TileSpec(edge, 6, 4, "bicubic", 8)
    rng = np.random.default_rng(0)
    sizes = [*rng.integers(1, 4000, (3000, 2)).tolist(), *([side, side] for side in range(1, 3000, 7))]
    for width, height in sizes:
        columns, rows = choose_grid(width, height, edge)
        assert spec.resized(height, width) == (rows * edge, columns * edge), (width, height)


def test_tokens_are_those_of_the_checkpoints_processor_and_a_long_text_loses_its_end(loaded: Loaded) -> None:
    image = make_images()[1]
    for document in [*((text, None) for text in TEXTS), (None, image), ("a", image), (LONG_TEXT, image)]:
        row, _ = loaded.prepare(QUERY, document)
        expected = loaded.reference.tokenize(QUERY, [document])["input_ids"][0].tolist()
        assert list(row.ids) == expected
        assert row.truncated == (len(expected) == loaded.reference.max_tokens)


def test_names_of_the_vision_tower_may_be_those_of_either_transformers(loaded: Loaded, tmp_path: Path) -> None:
    flat = load_checkpoint(str(build_nemotron_vl_reranker(tmp_path, nested=False)), LIMITS)
    seen = {name: value for piece in flat.pieces for name, value in piece.module.state_dict().items()}
    for piece in loaded.checkpoint.pieces:
        for name, value in piece.module.state_dict().items():
            torch.testing.assert_close(seen[name], value, atol=0, rtol=0)


def test_golden_pairs_have_the_scores_of_transformers(loaded: Loaded) -> None:
    reference = loaded.checkpoint.make_reference()
    kinds = set()
    for pair in reference.golden_pairs:
        png = pair.document.image_png
        document = pair.document.text, None if png is None else PilImage.open(io.BytesIO(png))
        kinds.add((document[0] is None, document[1] is None))
        expected = loaded.reference.score(str(pair.query.text), [document])
        assert pair.relevance_score == pytest.approx(float(expected), abs=2e-6)
    assert kinds == {(False, True), (True, False), (False, False)}
    assert "logits without an activation" in str(reference.notes)


def calm_the_head(folder: Path) -> None:
    """Take back the steepness that makes mistakes show: it makes errors of rounding as large."""
    path = folder / "model.safetensors"
    weights = load_file(path)
    weights["score.weight"] /= 4
    save_file(weights, path, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("precision", "target"),
    [
        ("w8", "cpu"),
        pytest.param("w4", "cpu", marks=pytest.mark.slow),
        pytest.param("fp16", "cuda", marks=pytest.mark.slow),
        ("bf16", "cuda"),
    ],
)
def test_precisions_keep_scores_within_what_each_accepts(
    checkpoint_folder: Callable[[str], Path], tmp_path: Path, precision: Any, target: Any
) -> None:
    folder = shutil.copytree(checkpoint_folder("nemotron_vl_reranker"), tmp_path / "checkpoint")
    calm_the_head(folder)
    export_in(precision, target, folder, tmp_path / "models")


def test_static_int8_is_refused(checkpoint_folder: Callable[[str], Path], tmp_path: Path) -> None:
    assert_static_int8_is_refused(checkpoint_folder("nemotron_vl_reranker"), tmp_path)


def read_forwards_only(loaded: Loaded, _: pytest.MonkeyPatch) -> None:
    loaded.modules["text_encoder"].decoder.causal = True


def forget_the_temperature(loaded: Loaded, _: pytest.MonkeyPatch) -> None:
    loaded.modules["scoring_head"].temperature = 1.0


def forget_the_last_norm_of_the_tower(loaded: Loaded, _: pytest.MonkeyPatch) -> None:
    loaded.modules["vision_encoder"].vision_model.post_layernorm = torch.nn.Identity()


def merge_by_columns(_: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    def merge(patches: torch.Tensor) -> torch.Tensor:
        count, side = len(patches), int(patches.shape[1] ** 0.5) // 2
        blocks = patches.reshape(count, side, 2, side, 2, -1).permute(0, 1, 3, 4, 2, 5)
        return blocks.reshape(count, side * side, -1)

    monkeypatch.setattr("lychee_export.families.nemotron.vision.merge_patches", merge)


def normalize_as_imagenet(loaded: Loaded, _: pytest.MonkeyPatch) -> None:
    loaded.modules["vision_encoder"].pixel_table = (torch.arange(256).float() / 255 - 0.45) / 0.225


def read_the_whole_first(loaded: Loaded, _: pytest.MonkeyPatch) -> None:
    encoder = loaded.modules["vision_encoder"]
    forward = encoder.forward
    encoder.forward = lambda pixel_values: forward(pixel_values.roll(1, 1))


def put_the_image_before_the_document(loaded: Loaded, _: pytest.MonkeyPatch) -> None:
    loaded.change_prompt(template="question:{query} \n \n passage:{document}")


def leave_the_space_after_the_image_out(loaded: Loaded, _: pytest.MonkeyPatch) -> None:
    loaded.change_prompt(image="<img><IMG_CONTEXT></img>")


def swap_query_and_document(loaded: Loaded, _: pytest.MonkeyPatch) -> None:
    loaded.change_prompt(template="{images}question:{document} \n \n passage:{query}")


def take_the_embeddings_of_the_tokens(loaded: Loaded, _: pytest.MonkeyPatch) -> None:
    loaded.modules["text_encoder"].image_token_id = -1


@pytest.mark.parametrize(
    "mutate",
    [
        read_forwards_only,
        forget_the_temperature,
        forget_the_last_norm_of_the_tower,
        merge_by_columns,
        normalize_as_imagenet,
        read_the_whole_first,
        put_the_image_before_the_document,
        leave_the_space_after_the_image_out,
        swap_query_and_document,
        take_the_embeddings_of_the_tokens,
    ],
)
def test_mutation_breaks_the_comparison(
    checkpoint_folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, mutate: Callable[..., None]
) -> None:
    loaded = Loaded(checkpoint_folder("nemotron_vl_reranker"))
    mutate(loaded, monkeypatch)
    with pytest.raises(AssertionError, match="Tensor-likes are not close"):
        assert_pairs_equal(loaded, loaded.run)

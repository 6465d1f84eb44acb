"""ColQwen2, ColQwen2.5 and ColPali against what transformers computes: the client's inputs into modules and files."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from checkpoints import BUILDERS
from checkpoints.colqwen import build_colqwen2_5, build_colqwen2_5_adapter
from checkpoints.colvision_reference import load_page_model
from checkpoints.exports import LIMITS
from checkpoints.inputs import TEXTS, make_images
from checkpoints.paligemma import build_colpali_engine
from checkpoints.qwen_vl_variants import merge_by_hand
from lychee_client import Image
from lychee_client._pipelines.image_tensors import pack_images, without_images
from lychee_client._pipelines.late_interaction import pack
from lychee_client.manifest import PageInteractionSpec
from lychee_client.preprocessing.page_text import PageTextProcessor
from lychee_export.contract.signature import ModelSignature, Tensors
from lychee_export.errors import CheckpointError
from lychee_export.exporter import export_checkpoint
from lychee_export.families import load_checkpoint
from lychee_export.families.colvision import paligemma, qwen
from lychee_export.families.samples import decode
from lychee_export.onnx.runtime import run_model
from msgspec import structs
from PIL import Image as PillowImage
from safetensors.torch import load_file, save_file

from .torch_modules import run_module

SCORE_ATOL = 1e-4
LOGIT_ATOL = 1e-3
"""The vectors travel in half floats: of a sum of 15 to 30 cosines they leave about so much."""
NAMES = ["colqwen2", "colqwen2_5", "colpali"]
QUERIES = ("一只猫", "a cat on the sofa?", "a")
SHORT_TEXTS = TEXTS[:-1]
LONG_TEXT = "the unbelievable, uncharacteristic cats sleep; 小猫喜欢晒太阳! " * 60

Run = Callable[[ModelSignature, Tensors], Tensors]
Document = str | PillowImage.Image


class Loaded:
    """A checkpoint: as its authors run it, in the exporter's modules, and with the client's preprocessing."""

    def __init__(self, folder: Path, reference_folder: Path | None = None) -> None:
        self.folder = folder
        self.reference = load_page_model(reference_folder or folder, LIMITS.max_img_size**2)
        self.checkpoint = load_checkpoint(str(folder), LIMITS)
        self.signatures = {piece.signature.name: piece.signature for piece in self.checkpoint.pieces}
        self.modules: dict[str, Any] = {piece.signature.name: piece.module for piece in self.checkpoint.pieces}
        spec = self.checkpoint.card.spec
        assert isinstance(spec.late_interaction, PageInteractionSpec)
        assert spec.image is not None
        self.image = spec.image
        self.use(spec.late_interaction)

    def use(self, late: PageInteractionSpec, **text: str) -> None:
        """Have the client tokenize by this specification."""
        spec = structs.replace(self.checkpoint.card.spec.text, **text)
        self.late, self.texts = late, PageTextProcessor(self.checkpoint.card.tokenizer_json, spec, late)

    def run(self, signature: ModelSignature, tensors: Tensors) -> Tensors:
        return run_module(self.modules[signature.name], signature, tensors)

    def embed(self, run: Run, documents: Sequence[Document]) -> list[Any]:
        """Return the vectors of documents: texts in one batch, pages one by one."""
        vectors: dict[int, Any] = {}
        texts = [index for index, document in enumerate(documents) if isinstance(document, str)]
        read = self.texts.tokenize_documents([str(documents[index]) for index in texts])
        if read:
            tensors = {**self.texts.to_tensors(read), **without_images(self.image, len(read))}
            rows = run(self.signatures["text_encoder"], tensors)["token_embeddings"]
            vectors = {index: row[0, : len(text.ids)] for index, row, text in zip(texts, rows, read, strict=True)}
        for index, document in enumerate(documents):
            if not isinstance(document, str):
                image = Image.from_pil(document).prepare(self.image)
                page = self.texts.tokenize_page(image.tokens or 0)
                tensors = {**self.texts.to_tensors([page]), **pack_images([image], self.image)}
                tensors |= run(self.signatures["vision_encoder"], tensors)
                rows = run(self.signatures["text_encoder"], tensors)["token_embeddings"]
                vectors[index] = rows[0, 0, : len(page.ids)]
        return [vectors[index] for index in range(len(documents))]

    def score(self, run: Run, query: str, documents: Sequence[Document]) -> Tensors:
        """Score as the client does: query alone, all documents' vectors in one row."""
        asked = self.texts.tokenize_query(query)
        tensors = {**self.texts.to_tensors([asked]), **without_images(self.image, 1)}
        rows = run(self.signatures["text_encoder"], tensors)["token_embeddings"]
        packed = pack(self.embed(run, documents)).copy()[None]
        query_vectors = rows[:, :, : len(asked.ids)]
        return run(self.signatures["scoring_head"], {"query_embeddings": query_vectors, "document_embeddings": packed})


@pytest.fixture(scope="module", params=NAMES)
def loaded(request: pytest.FixtureRequest, checkpoint_folder: Callable[[str], Path]) -> Loaded:
    """Load every checkpoint in turn."""
    return Loaded(checkpoint_folder(request.param))


@pytest.fixture(scope="module")
def run_onnx(loaded: Loaded, exported: Callable[[str], Path]) -> Run:
    """Run the exported files."""
    repository = exported(loaded.folder.name)
    files = {name: next((repository / name).glob("*/model.onnx")) for name in loaded.signatures}
    sessions = {
        name: onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]) for name, path in files.items()
    }
    return lambda signature, tensors: run_model(sessions[signature.name], signature, tensors)


def assert_scores_equal(loaded: Loaded, run: Run, query: str, documents: Sequence[Document]) -> None:
    seen = loaded.score(run, query, documents)
    expected = loaded.reference.score(query, documents).numpy()
    np.testing.assert_allclose(seen["relevance_score"][0], expected, atol=SCORE_ATOL, rtol=0)
    logits = loaded.reference.compute_logits(query, documents).numpy()
    np.testing.assert_allclose(seen["logits"][0], logits, atol=LOGIT_ATOL, rtol=0)


def mix() -> list[Document]:
    """Return seven documents: pages of every size between texts."""
    images = make_images()
    return [SHORT_TEXTS[1], images[1], images[2], SHORT_TEXTS[2], images[3], images[4], SHORT_TEXTS[0]]


def test_modules_and_files_score_as_the_authors_have_it(loaded: Loaded, run_onnx: Run) -> None:
    for count in range(1, 8):
        assert_scores_equal(loaded, run_onnx, QUERIES[count % len(QUERIES)], mix()[-count:])
    assert_scores_equal(loaded, loaded.run, QUERIES[1], mix())
    assert_scores_equal(loaded, loaded.run, QUERIES[0], [*SHORT_TEXTS, *make_images()])


def test_tokens_are_those_of_the_authors(loaded: Loaded) -> None:
    for query in QUERIES:
        assert (
            list(loaded.texts.tokenize_query(query).ids) == loaded.reference.read_query(query)["input_ids"][0].tolist()
        )
    for text in (*SHORT_TEXTS, LONG_TEXT):
        whole = loaded.reference.read_text(text)["input_ids"][0].tolist()
        (seen,) = loaded.texts.tokenize_documents([text])
        assert (list(seen.ids), seen.truncated) == (whole[: LIMITS.max_tokens], len(whole) > LIMITS.max_tokens)
    for image in make_images():
        prepared = Image.from_pil(image).prepare(loaded.image)
        page = loaded.texts.tokenize_page(prepared.tokens or 0)
        assert list(page.ids) == loaded.reference.read(image)["input_ids"][0].tolist()


def test_query_that_is_cut_keeps_its_suffix(loaded: Loaded) -> None:
    loaded_late = structs.replace(loaded.late, query_tokens=40)
    texts = PageTextProcessor(loaded.checkpoint.card.tokenizer_json, loaded.checkpoint.card.spec.text, loaded_late)
    cut, whole = texts.tokenize_query(LONG_TEXT), loaded.texts.tokenize_query("a")
    assert (len(cut.ids), cut.truncated, whole.truncated) == (40, True, False)
    assert list(cut.ids[-10:]) == list(whole.ids[-10:])
    assert texts.find_query_surplus(LONG_TEXT) > 0
    short = next(length for length in range(60, 0, -1) if texts.find_query_surplus("a " * length) <= 0)
    assert not texts.tokenize_query("a " * short).truncated
    assert texts.tokenize_query("a " * (short + 1)).truncated


def test_text_cannot_become_a_part_of_a_prompt(loaded: Loaded) -> None:
    tokenizer = loaded.reference.processor.tokenizer
    image_id, fill_id = tokenizer.convert_tokens_to_ids(loaded.late.image_token), tokenizer.pad_token_id
    for text in (f"a {loaded.late.image_token} b", loaded.late.query_suffix):
        (document,) = loaded.texts.tokenize_documents([text])
        query = list(loaded.texts.tokenize_query(text).ids)
        assert not {image_id, fill_id} & set(document.ids)
        assert (query.count(image_id), query.count(fill_id)) == (0, 10)


def test_page_that_is_too_long_is_refused(loaded: Loaded) -> None:
    room = LIMITS.max_tokens - len(loaded.texts.tokenize_page(0).ids)
    assert len(loaded.texts.tokenize_page(room).ids) == LIMITS.max_tokens
    with pytest.raises(ValueError, match=rf"takes {LIMITS.max_tokens + 1} tokens .* reads {LIMITS.max_tokens}"):
        loaded.texts.tokenize_page(room + 1)


def test_golden_pairs_have_the_scores_of_the_authors(loaded: Loaded) -> None:
    pairs = loaded.checkpoint.make_reference().golden_pairs
    kinds = [pair.document.text is None for pair in pairs]
    assert (kinds.count(True), kinds.count(False)) == (4, 3)
    expected = [
        float(
            loaded.reference.score(
                str(pair.query.text), [pair.document.text or decode(pair.document.image_png or b"")]
            )[0]
        )
        for pair in pairs
    ]
    assert [pair.relevance_score for pair in pairs] == pytest.approx(expected, abs=2e-6)
    assert max(expected) - min(expected) > 0.05


@pytest.mark.parametrize(
    ("name", "precision", "target"),
    [("colqwen2", "w4", "cpu"), ("colqwen2", "bf16", "cuda"), ("colpali", "w8", "cpu"), ("colpali", "fp16", "cuda")],
)
def test_precisions_keep_scores_within_what_each_accepts(
    checkpoint_folder: Callable[[str], Path], tmp_path: Path, name: str, precision: Any, target: Any
) -> None:
    report = export_checkpoint(
        str(checkpoint_folder(name)), tmp_path / "models", precision, limits=LIMITS, target=target
    )
    assert (report.manifest.precision, report.manifest.pipeline) == (precision, "late_interaction")


def test_static_int8_is_refused(checkpoint_folder: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"precision s8 is for dual encoders .* Choose --precision w8"):
        export_checkpoint(str(checkpoint_folder("colpali")), tmp_path, "s8", limits=LIMITS)


def test_adapter_scores_as_the_merged_weights(tmp_path: Path) -> None:
    adapter = build_colqwen2_5_adapter(tmp_path / "adapter")
    base = tmp_path / "adapter-base"
    merged = merge_by_hand(adapter, base, tmp_path / "merged")
    loaded = Loaded(adapter, merged)
    assert_scores_equal(loaded, loaded.run, QUERIES[1], mix())
    plain = load_page_model(base, LIMITS.max_img_size**2).score(QUERIES[1], mix())
    assert float((plain - loaded.reference.score(QUERIES[1], mix())).abs().max()) > 0.01


def test_layout_of_colpali_engine_scores_the_same(tmp_path: Path) -> None:
    loaded = Loaded(build_colpali_engine(tmp_path))
    assert_scores_equal(loaded, loaded.run, QUERIES[0], mix())


@pytest.mark.parametrize("build", [build_colqwen2_5, build_colpali_engine])
def test_names_that_transformers_5_writes_are_read_too(tmp_path: Path, build: Callable[[Path], Path]) -> None:
    loaded = Loaded(build(tmp_path))
    renamed = {}
    for name, value in load_file(tmp_path / "model.safetensors").items():
        today = name.replace("model.language_model.model.", "model.model.language_model.").replace("vision_model.", "")
        if build is build_colqwen2_5 and name.startswith("model."):
            today = name.replace("model.", "language_model.", 1)
        elif today.startswith(("model.vision_tower.", "model.multi_modal_projector.")):
            today = f"model.{today}"
        renamed[today] = value
    save_file(renamed, tmp_path / "model.safetensors", {"format": "pt"})
    again = load_checkpoint(str(tmp_path), LIMITS)
    assert [pair.relevance_score for pair in again.make_reference().golden_pairs] == [
        pair.relevance_score for pair in loaded.checkpoint.make_reference().golden_pairs
    ]


def leave_the_prefix_out(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded.use(loaded.late, query_prefix="")


def leave_the_suffix_out(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded.use(structs.replace(loaded.late, query_suffix=""))


def read_pages_bare(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded.use(structs.replace(loaded.late, page=loaded.late.image_token))


def leave_the_lengths_as_they_are(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.nn.functional, "normalize", lambda vectors, dim: vectors / 8)


def leave_the_bias_out(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    projection = loaded.modules["text_encoder"].projection
    loaded.modules["text_encoder"].projection = torch.nn.Linear(projection.in_features, projection.out_features)
    loaded.modules["text_encoder"].projection.weight = projection.weight
    torch.nn.init.zeros_(loaded.modules["text_encoder"].projection.bias)


def count_the_padding(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = loaded.checkpoint.card.spec.text
    tokenize = loaded.texts.tokenize_documents
    monkeypatch.setattr(
        loaded.texts,
        "tokenize_documents",
        lambda texts: [
            replace(text, ids=[*text.ids, *[spec.pad_token_id] * (text.bucket - len(text.ids))])
            for text in tokenize(texts)
        ],
    )


def leave_the_grid_out(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    def locate(self: Any, is_image: Any, image_index: Any, valid: Any, grids: Any) -> Any:
        places = valid.to(torch.int64).cumsum(1) - 1
        return torch.stack([places.clamp(min=0)] * 3)

    monkeypatch.setattr(qwen.TokenEncoder, "locate", locate)


def read_forward_alone(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded.modules["text_encoder"].decoder.causal = True


def leave_the_scale_of_embeddings_out(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded.modules["text_encoder"].decoder.embed_tokens.embed_scale.fill_(1.0)


def normalize_as_qwen_does(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded.modules["vision_encoder"].pixel_table = paligemma._make_pixel_table() * 1.1


EVERYWHERE = (
    leave_the_prefix_out,
    leave_the_suffix_out,
    read_pages_bare,
    leave_the_lengths_as_they_are,
    leave_the_bias_out,
    count_the_padding,
)
OF_ONE = {
    "colqwen2": (leave_the_grid_out,),
    "colqwen2_5": (leave_the_grid_out,),
    "colpali": (read_forward_alone, leave_the_scale_of_embeddings_out, normalize_as_qwen_does),
}


@pytest.mark.parametrize(
    ("name", "mutate"), [(name, mutate) for name in NAMES for mutate in (*EVERYWHERE, *OF_ONE[name])]
)
def test_mistakes_break_the_comparison(
    tmp_path: Path,
    name: str,
    mutate: Callable[[Loaded, pytest.MonkeyPatch], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loaded = Loaded(BUILDERS[name](tmp_path))
    documents = mix()
    expected = loaded.reference.score(QUERIES[1], documents).numpy()
    mutate(loaded, monkeypatch)
    seen = loaded.score(loaded.run, QUERIES[1], documents)["relevance_score"][0]
    monkeypatch.undo()
    assert not np.allclose(seen, expected, atol=10 * SCORE_ATOL, rtol=0)  # NaN is not close either

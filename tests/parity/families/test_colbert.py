"""ColBERT against its authors' computation: the client's inputs into modules and ONNX files."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from checkpoints import BUILDERS
from checkpoints.colbert_reference import load_colbert
from checkpoints.exports import LIMITS
from checkpoints.inputs import TEXTS
from lychee_client._pipelines import late_interaction
from lychee_client._pipelines.late_interaction import pack
from lychee_client.manifest import LateInteractionSpec
from lychee_client.preprocessing.marked_text import MarkedTextProcessor
from lychee_export.contract.signature import ModelSignature, Tensors
from lychee_export.errors import CheckpointError
from lychee_export.exporter import export_checkpoint
from lychee_export.families import load_checkpoint
from lychee_export.families.colbert import encoder
from lychee_export.onnx.runtime import run_model
from lychee_server.execution.reference_rows import Scorer, Step, read_rows
from msgspec import structs

from .torch_modules import run_module

SCORE_ATOL = 1e-4
LOGIT_RTOL, LOGIT_ATOL = 1e-4, 5e-4
"""The vectors travel in half floats: of a sum of 20 to 30 cosines they leave about so much."""
NAMES = ["colbert", "answerai_colbert", "jina_colbert", "pylate_colbert", "modern_colbert", "lateon"]
QUERIES = ("一只猫", "the yellow cat", "Hot drink?", "怎么退款", "a", "coffee: a cup", " flowers & sofas [MASK]\n")
PUNCTUATED = "(the); cat? -- sofa! ... [yellow] & 'hot'"
LONG_TEXT = "the unbelievable, uncharacteristic cats sleep; 小猫喜欢晒太阳! " * 20

Run = Callable[[ModelSignature, Tensors], Tensors]


class Loaded:
    """A checkpoint: as its authors run it, in the exporter's modules, and with the client's tokenization."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.reference = load_colbert(folder)
        self.checkpoint = load_checkpoint(str(folder), LIMITS)
        self.signatures = {piece.signature.name: piece.signature for piece in self.checkpoint.pieces}
        self.modules: dict[str, Any] = {piece.signature.name: piece.module for piece in self.checkpoint.pieces}
        spec = self.checkpoint.card.spec
        assert spec.late_interaction is not None
        self.late: LateInteractionSpec = spec.late_interaction
        self.fills: bool = self.modules["text_encoder"].fills
        self.use(self.late)

    def use(self, late: LateInteractionSpec) -> None:
        """Have the client tokenize by this specification."""
        self.texts = MarkedTextProcessor(self.checkpoint.card.tokenizer_json, self.checkpoint.card.spec.text, late)

    def run(self, signature: ModelSignature, tensors: Tensors) -> Tensors:
        return run_module(self.modules[signature.name], signature, tensors)

    def score(self, run: Run, query: str, documents: Sequence[str]) -> Tensors:
        """Score as the client does: query alone, documents in one batch, their vectors that count in one row."""
        encoder, head = self.signatures["text_encoder"], self.signatures["scoring_head"]
        asked = self.texts.tokenize_query(query)
        vectors = run(encoder, dict(self.texts.to_tensors([asked])))["token_embeddings"]
        read = self.texts.tokenize_documents(documents)
        rows = run(encoder, dict(self.texts.to_tensors(read)))["token_embeddings"]
        counted = [row[0, : len(text.ids)][self.texts.find_counted(text)] for row, text in zip(rows, read, strict=True)]
        query_vectors = vectors[:, :, : len(asked.ids)]
        return run(head, {"query_embeddings": query_vectors, "document_embeddings": pack(counted).copy()[None]})


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


def assert_scores_equal(loaded: Loaded, run: Run, documents: Sequence[str] = TEXTS) -> None:
    for query in QUERIES:
        seen = loaded.score(run, query, documents)
        pairs = [(query, document) for document in documents]
        expected = loaded.reference.score(pairs).numpy()
        np.testing.assert_allclose(seen["relevance_score"][0], expected, atol=SCORE_ATOL, rtol=0)
        logits = loaded.reference.compute_logits(pairs).numpy()
        np.testing.assert_allclose(seen["logits"][0], logits, atol=LOGIT_ATOL, rtol=LOGIT_RTOL)


def test_modules_and_files_score_as_the_authors_have_it(loaded: Loaded, run_onnx: Run) -> None:
    for run in (loaded.run, run_onnx):
        for count in range(1, 8):
            assert_scores_equal(loaded, run, [*TEXTS, LONG_TEXT][-count:])


def test_tokens_are_those_of_the_authors(loaded: Loaded) -> None:
    for query in (*QUERIES, LONG_TEXT):
        ids, mask = loaded.reference.tokenize_query(query)
        tensors = loaded.texts.to_tensors([loaded.texts.tokenize_query(query)])
        assert tensors["input_ids"][:, : ids.shape[1]].tolist() == ids.tolist()
        assert tensors["attention_mask"][:, : ids.shape[1]].tolist() == mask.tolist()
        assert tensors["attention_mask"][:, ids.shape[1] :].sum() == 0
    for document in (*TEXTS, LONG_TEXT):
        (text,) = loaded.texts.tokenize_documents([document])
        ids, _ = loaded.reference.tokenize_document(document)
        assert list(text.ids) == ids[0].tolist()
        whole = loaded.reference.count_tokens(document)
        assert text.truncated == (whole > loaded.reference.settings["doc_maxlen"])
        assert loaded.texts.find_counted(text).tolist() == loaded.reference.counts(ids)[0].tolist()


def test_golden_pairs_have_the_scores_of_the_authors(loaded: Loaded) -> None:
    pairs = loaded.checkpoint.make_reference().golden_pairs
    expected = loaded.reference.score([(str(pair.query.text), str(pair.document.text)) for pair in pairs])
    assert [pair.relevance_score for pair in pairs] == pytest.approx(expected.tolist(), abs=2e-6)
    assert float(expected.max() - expected.min()) > 0.01


def test_one_bad_document_gives_nan_and_its_neighbours_keep_their_scores(loaded: Loaded, run_onnx: Run) -> None:
    head = loaded.signatures["scoring_head"]
    tensors = loaded.checkpoint.pieces[1].sample_inputs(np.random.default_rng(0), 3)
    good = run_onnx(head, tensors)
    for bad in (np.nan, np.inf, -np.inf):
        broken = {name: value.copy() for name, value in tensors.items()}
        broken["document_embeddings"][1, 2, 5, 3] = bad
        seen = run_onnx(head, broken)
        for name, values in seen.items():
            assert np.isnan(values[1, 2])
            values[1, 2] = good[name][1, 2]
            np.testing.assert_array_equal(values, good[name])


@pytest.mark.parametrize(
    ("name", "precision", "target"),
    [("modern_colbert", "w8", "cpu"), ("colbert", "w4", "cpu"), ("jina_colbert", "bf16", "cuda")],
)
def test_precisions_keep_scores_within_what_each_accepts(
    checkpoint_folder: Callable[[str], Path], tmp_path: Path, name: str, precision: Any, target: Any
) -> None:
    folder = str(checkpoint_folder(name))
    report = export_checkpoint(folder, tmp_path / "models", precision, limits=LIMITS, target=target)
    assert (report.manifest.precision, report.manifest.pipeline) == (precision, "late_interaction")


def test_static_int8_is_refused(checkpoint_folder: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"precision s8 is for dual encoders .* Choose --precision w8"):
        export_checkpoint(str(checkpoint_folder("colbert")), tmp_path, "s8", limits=LIMITS)


def swap_the_markers(loaded: Loaded) -> None:
    late = loaded.late
    swapped = structs.replace(late, query_marker=late.document_marker, document_marker=late.query_marker)
    loaded.modules["text_encoder"].query_marker = late.document_marker
    loaded.use(swapped)


def fill_with_others(loaded: Loaded) -> None:
    loaded.use(structs.replace(loaded.late, fill_token_id=loaded.late.document_marker))


def count_the_masks_or_not(loaded: Loaded) -> None:
    encoder = loaded.modules["text_encoder"]
    encoder.fills = not encoder.fills


def read_the_masks(loaded: Loaded) -> None:
    loaded.use(structs.replace(loaded.late, attends_to_fill=not loaded.late.attends_to_fill))


def count_the_punctuation(loaded: Loaded) -> None:
    loaded.modules["text_encoder"].counts[:] = 1
    loaded.use(structs.replace(loaded.late, skipped_token_ids=()))


def leave_the_lengths_as_they_are(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder.functional, "normalize", lambda vectors, dim: vectors / 8)


def take_the_mean(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "amax", lambda values, dim: values.mean(dim))


def count_the_padding(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    def pad_with_others(documents: Sequence[Any]) -> Any:
        longest = max(documents, key=len)
        packed = late_interaction.pack(documents).copy()
        for row, vectors in zip(packed, documents, strict=True):
            row[len(vectors) :] = longest[len(vectors) :]
        return packed

    monkeypatch.setitem(globals(), "pack", pad_with_others)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "mutate", [swap_the_markers, fill_with_others, count_the_masks_or_not, read_the_masks, count_the_punctuation]
)
def test_wrong_tokens_break_the_comparison(
    checkpoint_folder: Callable[[str], Path], name: str, mutate: Callable[[Loaded], None]
) -> None:
    loaded = Loaded(checkpoint_folder(name))
    mutate(loaded)
    if mutate is count_the_masks_or_not and loaded.late.attends_to_fill:  # then all are tokens like others
        assert_scores_equal(loaded, loaded.run, [*TEXTS, PUNCTUATED])
        return
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        assert_scores_equal(loaded, loaded.run, [*TEXTS, PUNCTUATED])


def forget_the_places(loaded: Loaded) -> None:
    states = loaded.modules["text_encoder"].states
    states.frequencies = torch.zeros_like(states.frequencies)


def narrow_the_window(loaded: Loaded) -> None:
    loaded.modules["text_encoder"].states.window = 8


def leave_the_residual_out(loaded: Loaded) -> None:
    loaded.modules["text_encoder"].projection[0].residual = None


def leave_the_input_out(loaded: Loaded) -> None:
    loaded.modules["text_encoder"].projection[1].adds_input = False


def keep_the_white_space(loaded: Loaded) -> None:
    content = json.loads(loaded.checkpoint.card.tokenizer_json)
    content["normalizer"]["normalizers"].pop(0)
    loaded.texts = MarkedTextProcessor(json.dumps(content), loaded.checkpoint.card.spec.text, loaded.late)


@pytest.mark.parametrize(
    ("name", "mutate"),
    [
        ("jina_colbert", forget_the_places),
        ("modern_colbert", narrow_the_window),
        ("modern_colbert", keep_the_white_space),
        ("lateon", leave_the_residual_out),
        ("lateon", leave_the_input_out),
    ],
)
def test_wrong_models_break_the_comparison(
    checkpoint_folder: Callable[[str], Path], name: str, mutate: Callable[[Loaded], None]
) -> None:
    loaded = Loaded(checkpoint_folder(name))
    mutate(loaded)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        assert_scores_equal(loaded, loaded.run)


@pytest.mark.slow  # importing sentence-transformers takes ten seconds
@pytest.mark.parametrize("name", ["pylate_colbert", "modern_colbert", "lateon"])
def test_sentence_transformers_reads_the_same_scores_from_these_files(
    checkpoint_folder: Callable[[str], Path], name: str
) -> None:
    from sentence_transformers import MultiVectorEncoder

    folder = checkpoint_folder(name)
    theirs, ours = MultiVectorEncoder(str(folder), device="cpu"), Loaded(folder)
    documents = [text.strip() for text in (*TEXTS, PUNCTUATED)]
    vectors = theirs.encode_document(documents)
    for query in ("一只猫", "the yellow cat", "coffee: a cup"):
        expected = theirs.similarity(theirs.encode_query([query]), vectors)[0].numpy()
        seen = ours.score(ours.run, query, documents)["logits"][0]
        np.testing.assert_allclose(seen, expected, atol=LOGIT_ATOL, rtol=LOGIT_RTOL)


@pytest.mark.parametrize("mutate", [leave_the_lengths_as_they_are, take_the_mean, count_the_padding])
def test_wrong_arithmetic_breaks_the_comparison(
    tmp_path: Path, mutate: Callable[[Loaded, pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = Loaded(BUILDERS["colbert"](tmp_path))
    expected = loaded.reference.score([(QUERIES[1], text) for text in TEXTS]).numpy()
    mutate(loaded, monkeypatch)
    seen = loaded.score(loaded.run, QUERIES[1], TEXTS)["relevance_score"][0]
    monkeypatch.undo()
    assert not np.allclose(seen, expected, atol=10 * SCORE_ATOL, rtol=0)  # NaN is not close either


def test_ensemble_does_not_count_punctuation_either(loaded: Loaded, run_onnx: Run) -> None:
    (ensemble,) = loaded.checkpoint.card.ensembles
    query = QUERIES[1]
    vectors = loaded.reference.embed_query(query).half().numpy()[:, None]
    rows = loaded.texts.tokenize_documents(list(TEXTS))
    tensors: Tensors = dict(loaded.texts.to_tensors(rows)) | {"query_embeddings": np.repeat(vectors, len(rows), 0)}
    tensors |= run_onnx(loaded.signatures["text_encoder"], tensors)
    tensors["document_embeddings"] = tensors["token_embeddings"]
    scores = run_onnx(loaded.signatures["scoring_head"], tensors)["relevance_score"]
    assert ensemble.name == "rerank_text"
    expected = loaded.reference.score([(query, text) for text in TEXTS]).numpy()
    np.testing.assert_allclose(scores[:, 0], expected, atol=SCORE_ATOL, rtol=0)


def test_reference_rows_measure_query_and_document(
    loaded: Loaded, run_onnx: Run, exported: Callable[[str], Path]
) -> None:
    (ensemble,) = loaded.checkpoint.card.ensembles
    path = next(exported(loaded.folder.name).glob("client_assets/*/reference_rows.npz"))
    steps = [Step(step.name, ensemble.input_names(step), ensemble.output_names(step)) for step in ensemble.steps]
    (rows,) = read_rows(path, {ensemble.name: steps})
    assert [step.model for step in rows.steps] == ["text_encoder", "text_encoder", "scoring_head"]

    class Session:
        def __init__(self, name: str) -> None:
            self.signature = loaded.signatures[name]

        def run(self, names: Any, feed: Any) -> list[Any]:
            outputs = run_onnx(self.signature, feed)
            return [outputs[name] for name in names]

    scorer = Scorer(Session)
    for padded in (False, True):
        np.testing.assert_allclose(scorer.score(rows, padded=padded), rows.scores, atol=SCORE_ATOL, rtol=0)
    wrong = dict(rows.inputs)
    wrong["query_input_ids"] = np.roll(wrong["query_input_ids"], 7, axis=0)
    moved = scorer.score(replace(rows, inputs=wrong))
    assert np.abs(moved - rows.scores).max() > 10 * SCORE_ATOL

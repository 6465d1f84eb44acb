"""Text cross-encoders against transformers or their authors' code: the client's inputs into modules and ONNX files."""

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import BUILDERS
from checkpoints.exports import LIMITS
from checkpoints.pairs_reference import load_pair_model
from lychee_loadtest.execution import available_executions, open_session
from safetensors.torch import load_file, save_file
from transformers import AttentionInterface, AutoTokenizer
from transformers.models.bert.modeling_bert import eager_attention_forward

from .text_pairs import (
    LOGIT_ATOL,
    LONG_TEXT,
    QUERIES,
    SCORE_ATOL,
    LoadedPairs,
    Run,
    assert_padding_changes_nothing,
    assert_pairs_equal,
    assert_static_int8_is_refused,
    export_in,
    make_pairs,
    run_files,
)

NAMES = [
    "bert_reranker",
    "deberta_reranker",
    "gte_multilingual_reranker",
    "jina_v2_reranker",
    "modernbert_reranker",
    "roberta_reranker",
    "xlm_roberta_reranker",
]


def load(folder: Path) -> LoadedPairs:
    """Load a checkpoint in transformers and in the exporter."""
    return LoadedPairs(folder, load_pair_model(folder, LIMITS.max_tokens))


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    """Return each checkpoint's name in turn."""
    return str(request.param)


@pytest.fixture
def loaded(checkpoint_folder: Callable[[str], Path], name: str) -> LoadedPairs:
    """Build and load a checkpoint."""
    return load(checkpoint_folder(name))


@pytest.fixture
def run_onnx(exported: Callable[[str], Path], name: str) -> Run:
    """Export the checkpoint and run its files in ONNX Runtime."""
    return run_files(exported(name))


def test_pairs_equal_transformers_for_every_batch(loaded: LoadedPairs) -> None:
    assert_pairs_equal(loaded, loaded.run)


def test_onnx_pairs_equal_transformers_for_every_batch(loaded: LoadedPairs, run_onnx: Run) -> None:
    assert_pairs_equal(loaded, run_onnx)


def test_tokens_are_those_of_a_pair_and_a_long_document_alone_is_cut(loaded: LoadedPairs) -> None:
    pairs = [*make_pairs(6), *((query, LONG_TEXT) for query in QUERIES)]
    for pair, row in zip(pairs, loaded.tokenize(pairs), strict=True):
        inputs, tokenizer = loaded.reference.tokenize([pair]), loaded.reference.tokenizer
        assert list(row.ids) == inputs["input_ids"][0].tolist()
        assert row.truncated == (len(tokenizer(*pair)["input_ids"]) > len(row.ids))
        longest_first = tokenizer(*pair, truncation=True, max_length=loaded.reference.max_tokens)
        assert longest_first["input_ids"] == list(row.ids)  # as in sentence-transformers: the query is the shorter part


def test_pair_of_the_longest_length_is_scored(loaded: LoadedPairs, run_onnx: Run) -> None:
    pair = (QUERIES[1], LONG_TEXT)
    (row,) = loaded.tokenize([pair])
    assert len(row.ids) == row.bucket == loaded.reference.max_tokens
    score = loaded.run_all(run_onnx, [pair])["relevance_score"]
    assert float(score[0, 0]) == pytest.approx(float(loaded.reference.score([pair])), abs=SCORE_ATOL)


def test_score_is_the_same_whatever_the_padding(loaded: LoadedPairs, run_onnx: Run) -> None:
    assert_padding_changes_nothing(loaded, run_onnx)


@pytest.mark.parametrize("name", ["bert_reranker", "jina_v2_reranker", "roberta_reranker", "xlm_roberta_reranker"])
def test_openvino_computes_rows_without_their_padding(exported: Callable[[str], Path], name: str) -> None:
    if "openvino-fp32" not in available_executions():
        pytest.skip("this onnxruntime has no OpenVINO")
    (path,) = exported(name).glob("text_encoder/*/model.onnx")
    plain, openvino = (open_session(path, each) for each in ("cpu-fp32", "openvino-fp32"))
    ids = np.random.default_rng(0).integers(5, 20, (5, 48))
    mask = (np.arange(48) < np.array([[48], [7], [31], [1], [16]])).astype(np.int64)
    feed = {"input_ids": ids, "attention_mask": mask}
    (expected,), (found,) = plain.run(None, feed), openvino.run(None, feed)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


def test_golden_pairs_have_the_scores_of_transformers(loaded: LoadedPairs) -> None:
    pairs = loaded.checkpoint.make_reference().golden_pairs
    texts = [(str(pair.query.text), str(pair.document.text)) for pair in pairs]
    expected = [float(loaded.reference.score([text])) for text in texts]
    assert [pair.relevance_score for pair in pairs] == pytest.approx(expected, abs=1e-5)
    assert max(expected) - min(expected) > 0.1


def test_tokens_of_deberta_are_those_of_its_file_and_not_those_of_transformers_class(
    checkpoint_folder: Callable[[str], Path],
) -> None:
    loaded = load(checkpoint_folder("deberta_reranker"))
    written, plain = ("the cat　！ ﬂower", "the cat ! flower")
    rows = [list(row.ids) for row in loaded.tokenize([("cat", written), ("cat", plain)])]
    assert rows[0] == rows[1]
    assert AutoTokenizer.from_pretrained(loaded.folder)("cat", written)["input_ids"] != rows[0]


@pytest.mark.slow  # importing sentence-transformers takes ten seconds
@pytest.mark.parametrize(
    "name", [name for name in NAMES if name not in ("gte_multilingual_reranker", "jina_v2_reranker")]
)
def test_scores_are_those_of_a_cross_encoder_of_sentence_transformers(loaded: LoadedPairs) -> None:
    from sentence_transformers import CrossEncoder

    pairs = [*make_pairs(7), (QUERIES[1], LONG_TEXT)]
    theirs = CrossEncoder(str(loaded.folder), device="cpu", max_length=loaded.reference.max_tokens)
    theirs.model.float()  # float16 in the file stays float16 there
    theirs[0].processor = loaded.reference.tokenizer  # of DeBERTa they take the one that transformers writes anew
    theirs[0].processor.model_max_length = loaded.reference.max_tokens
    activation = torch.nn.Sigmoid() if "bert_reranker" in loaded.folder.name else None
    seen = loaded.run_all(loaded.run, pairs)
    expected = theirs.predict(pairs, activation_fn=activation)
    np.testing.assert_allclose(seen["relevance_score"][:, 0], expected, atol=SCORE_ATOL, rtol=0)
    if loaded.folder.name == "bert_reranker":  # whose config.json asks for the identity
        np.testing.assert_allclose(seen["logits"][:, 0], theirs.predict(pairs), atol=LOGIT_ATOL, rtol=0)


def calm_the_classifier(folder: Path) -> None:
    """Take back the steepness that makes mistakes show: it makes errors of rounding as large."""
    path = folder / "model.safetensors"
    weights = load_file(path)
    last = "classifier" if "classifier.weight" in weights else "classifier.out_proj"
    for name in (f"{last}.weight", f"{last}.bias"):
        weights[name] /= 3
    save_file(weights, path, metadata={"format": "pt"})


@pytest.mark.parametrize(
    "reranker",
    [
        "modernbert_reranker",
        pytest.param("deberta_reranker", marks=pytest.mark.slow),
        pytest.param("gte_multilingual_reranker", marks=pytest.mark.slow),
        pytest.param("jina_v2_reranker", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize(("precision", "target"), [("w8", "cpu"), ("w4", "cpu"), ("fp16", "cuda"), ("bf16", "cuda")])
def test_precisions_keep_scores_within_what_each_accepts(
    checkpoint_folder: Callable[[str], Path], tmp_path: Path, reranker: str, precision: Any, target: Any
) -> None:
    folder = shutil.copytree(checkpoint_folder(reranker), tmp_path / "checkpoint")
    calm_the_classifier(folder)
    report, lines = export_in(precision, target, folder, tmp_path / "models")
    assert report.manifest.image is None
    if target == "cuda":
        assert not any("in float32 stay" in line for line in lines)  # padding far from any token is no overflow


def test_static_int8_is_refused(checkpoint_folder: Callable[[str], Path], tmp_path: Path) -> None:
    assert_static_int8_is_refused(checkpoint_folder("bert_reranker"), tmp_path)


def swap_the_token_types(loaded: LoadedPairs) -> None:
    embeddings = loaded.modules["text_encoder"].embeddings
    forward = embeddings.forward
    embeddings.forward = lambda token_type_ids, **rest: forward(token_type_ids=1 - token_type_ids, **rest)


def leave_the_pooler_out(loaded: LoadedPairs) -> None:
    loaded.modules["scoring_head"].pooler = torch.nn.Identity()


def count_positions_from_zero(loaded: LoadedPairs) -> None:
    loaded.modules["text_encoder"].first_position = 1


def leave_the_activation_of_the_pooler_out(loaded: LoadedPairs) -> None:
    loaded.modules["scoring_head"].pooler[1] = torch.nn.Identity()


def see_other_tokens(loaded: LoadedPairs) -> None:
    """Let what stands in the places of padding count: in BERT's layers a token of the row before or of the same one."""
    attention = loaded.modules["text_encoder"].encoder.layer[0].attention.self
    attention.config = copy.copy(attention.config)
    attention.config._attn_implementation = "sees_all"

    def attend(*args: Any, **rest: Any) -> Any:
        *tensors, bias = args
        return eager_attention_forward(*tensors, torch.zeros_like(bias), **rest)

    AttentionInterface.register("sees_all", attend)


def see_the_padding(loaded: LoadedPairs) -> None:
    encoder = loaded.modules["text_encoder"]
    inner = encoder.encoder.layer[0] if hasattr(encoder, "encoder") else encoder.layers[0]
    forward = inner.forward

    def forward_all(hidden: Any, attention_mask: Any, **rest: Any) -> Any:
        seen = torch.zeros_like(attention_mask)
        return forward(hidden, attention_mask=seen + 1 if seen.dtype == torch.bool else seen, **rest)

    inner.forward = forward_all


def swap_query_and_key(loaded: LoadedPairs) -> None:
    encoder = loaded.modules["text_encoder"]
    for layer in encoder.encoder.layer if hasattr(encoder, "encoder") else encoder.layers:
        attention, names = (layer.self_attn, "qk") if hasattr(layer, "self_attn") else (layer.attention.self, "")
        query, key = [f"{name}_proj" for name in names] or ["query", "key"]
        first, second = getattr(attention, query), getattr(attention, key)
        setattr(attention, query, second)
        setattr(attention, key, first)


def swap_key_and_value(loaded: LoadedPairs) -> None:
    for layer in loaded.modules["text_encoder"].encoder.layer:
        attention = layer.attention.self
        attention.key, attention.value = attention.value, attention.key


def swap_gate_and_raised(loaded: LoadedPairs) -> None:
    for layer in loaded.modules["text_encoder"].layers:
        layer.mlp.gate_proj, layer.mlp.up_proj = layer.mlp.up_proj, layer.mlp.gate_proj


def halve_the_base_of_the_angles(loaded: LoadedPairs) -> None:
    encoder = loaded.modules["text_encoder"]
    half = len(encoder.frequencies)
    encoder.frequencies *= 2 ** (torch.arange(half) / half)


def leave_the_frequencies_undivided(loaded: LoadedPairs) -> None:
    loaded.modules["text_encoder"].frequencies *= 8 ** (1 / 4)  # the factor to the power of 2 / head_dim


def widen_a_bucket(loaded: LoadedPairs) -> None:
    encoder = loaded.modules["text_encoder"]
    encoder.buckets = encoder.buckets + (encoder.buckets.abs() > 8) * encoder.buckets.sign()


def measure_distances_backwards(loaded: LoadedPairs) -> None:
    encoder = loaded.modules["text_encoder"]
    encoder.buckets = -encoder.buckets


def take_another_activation_of_the_pooler(loaded: LoadedPairs) -> None:
    loaded.modules["scoring_head"].pooler[1] = torch.nn.Tanh()


def pool_the_first_token(loaded: LoadedPairs) -> None:
    loaded.modules["text_encoder"].means = False


def widen_the_window(loaded: LoadedPairs) -> None:
    loaded.modules["text_encoder"].window += 1


def swap_the_angles(loaded: LoadedPairs) -> None:
    frequencies = loaded.modules["text_encoder"].frequencies
    first, second = sorted(frequencies)
    frequencies[first], frequencies[second] = frequencies[second], frequencies[first]


@pytest.mark.parametrize(
    ("mutated", "mutate"),
    [
        ("bert_reranker", swap_the_token_types),
        ("bert_reranker", leave_the_pooler_out),
        ("bert_reranker", leave_the_activation_of_the_pooler_out),
        ("bert_reranker", see_other_tokens),
        ("xlm_roberta_reranker", see_other_tokens),
        ("xlm_roberta_reranker", count_positions_from_zero),
        ("xlm_roberta_reranker", leave_the_pooler_out),
        ("jina_v2_reranker", count_positions_from_zero),
        ("jina_v2_reranker", swap_query_and_key),
        ("jina_v2_reranker", swap_key_and_value),
        ("jina_v2_reranker", leave_the_activation_of_the_pooler_out),
        ("gte_multilingual_reranker", swap_query_and_key),
        ("gte_multilingual_reranker", swap_gate_and_raised),
        ("gte_multilingual_reranker", halve_the_base_of_the_angles),
        ("gte_multilingual_reranker", leave_the_frequencies_undivided),
        ("gte_multilingual_reranker", leave_the_pooler_out),
        ("gte_multilingual_reranker", see_the_padding),
        ("deberta_reranker", widen_a_bucket),
        ("deberta_reranker", measure_distances_backwards),
        ("deberta_reranker", leave_the_pooler_out),
        ("deberta_reranker", take_another_activation_of_the_pooler),
        ("deberta_reranker", see_the_padding),
        ("modernbert_reranker", leave_the_pooler_out),
        ("modernbert_reranker", see_the_padding),
        ("modernbert_reranker", pool_the_first_token),
        ("modernbert_reranker", widen_the_window),
        ("modernbert_reranker", swap_the_angles),
    ],
)
def test_mutation_breaks_the_comparison(tmp_path: Path, mutated: str, mutate: Callable[[LoadedPairs], None]) -> None:
    loaded = load(BUILDERS[mutated](tmp_path))
    mutate(loaded)
    with pytest.raises(AssertionError, match="Tensor-likes are not close"):
        assert_pairs_equal(loaded, loaded.run)


def test_another_activation_breaks_the_comparison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load(BUILDERS["bert_reranker"](tmp_path))
    sigmoid = torch.sigmoid
    monkeypatch.setattr(
        "lychee_export.families.text_cross_encoder.head.torch.sigmoid", lambda logits: sigmoid(2 * logits)
    )
    seen = loaded.run_all(loaded.run, make_pairs(3))["relevance_score"]
    monkeypatch.undo()
    expected = loaded.reference.score(make_pairs(3)).numpy()
    assert np.abs(seen[:, 0] - expected).max() > 10 * SCORE_ATOL

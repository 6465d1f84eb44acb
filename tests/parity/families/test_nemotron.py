"""Llama Nemotron text rerankers against transformers: the client's inputs into modules and ONNX files."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import BUILDERS
from checkpoints.exports import LIMITS
from checkpoints.nemotron_reference import load_nemotron_text_model
from lychee_export.families.decoder import take_mean
from safetensors.torch import load_file, save_file

from .text_pairs import (
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


def load(folder: Path) -> LoadedPairs:
    """Load a checkpoint in transformers and in the exporter."""
    return LoadedPairs(folder, load_nemotron_text_model(folder, LIMITS.max_tokens))


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedPairs:
    """Build and load a checkpoint."""
    return load(BUILDERS["nemotron_reranker"](tmp_path_factory.mktemp("nemotron") / "nemotron_reranker"))


@pytest.fixture
def run_onnx(exported: Callable[[str], Path]) -> Run:
    """Export the checkpoint and run its files in ONNX Runtime."""
    return run_files(exported("nemotron_reranker"))


def test_pairs_equal_transformers_for_every_batch(loaded: LoadedPairs) -> None:
    assert_pairs_equal(loaded, loaded.run)


def test_onnx_pairs_equal_transformers_for_every_batch(loaded: LoadedPairs, run_onnx: Run) -> None:
    assert_pairs_equal(loaded, run_onnx)


def test_tokens_are_those_of_the_model_card_and_a_long_document_loses_its_end(loaded: LoadedPairs) -> None:
    for pair in [*make_pairs(7), *((query, LONG_TEXT) for query in QUERIES)]:
        (row,) = loaded.tokenize([pair])
        expected = loaded.reference.tokenize([pair])["input_ids"][0].tolist()
        assert list(row.ids) == expected
        assert row.truncated == (len(expected) == loaded.reference.max_tokens)


def test_prompt_of_the_longest_length_is_scored(loaded: LoadedPairs, run_onnx: Run) -> None:
    pair = (QUERIES[1], LONG_TEXT)
    (row,) = loaded.tokenize([pair])
    assert len(row.ids) == row.bucket == loaded.reference.max_tokens == 512
    score = loaded.run_all(run_onnx, [pair])["relevance_score"]
    assert float(score[0, 0]) == pytest.approx(float(loaded.reference.score([pair])), abs=SCORE_ATOL)


def test_score_is_the_same_whatever_the_padding(loaded: LoadedPairs, run_onnx: Run) -> None:
    assert_padding_changes_nothing(loaded, run_onnx)


def test_golden_pairs_have_the_scores_of_transformers(loaded: LoadedPairs) -> None:
    reference = loaded.checkpoint.make_reference()
    texts = [(str(pair.query.text), str(pair.document.text)) for pair in reference.golden_pairs]
    expected = [float(loaded.reference.score([text])) for text in texts]
    assert [pair.relevance_score for pair in reference.golden_pairs] == pytest.approx(expected, abs=2e-6)
    assert max(expected) - min(expected) > 0.1
    assert "logits without an activation" in str(reference.notes)


def calm_the_head(folder: Path) -> None:
    """Take back the steepness that makes mistakes show: it makes errors of rounding as large."""
    path = folder / "model.safetensors"
    weights = load_file(path)
    weights["score.weight"] /= 4
    save_file(weights, path, metadata={"format": "pt"})


@pytest.mark.parametrize(("precision", "target"), [("w8", "cpu"), ("w4", "cpu"), ("fp16", "cuda"), ("bf16", "cuda")])
def test_precisions_keep_scores_within_what_each_accepts(
    checkpoint_folder: Callable[[str], Path], tmp_path: Path, precision: Any, target: Any
) -> None:
    folder = shutil.copytree(checkpoint_folder("nemotron_reranker"), tmp_path / "checkpoint")
    calm_the_head(folder)
    export_in(precision, target, folder, tmp_path / "models")


def test_static_int8_is_refused(checkpoint_folder: Callable[[str], Path], tmp_path: Path) -> None:
    assert_static_int8_is_refused(checkpoint_folder("nemotron_reranker"), tmp_path)


def read_forwards_only(loaded: LoadedPairs, _: pytest.MonkeyPatch) -> None:
    loaded.modules["text_encoder"].decoder.causal = True


def see_the_padding(_: LoadedPairs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lychee_export.families.decoder.see_all", lambda valid: torch.ones_like(valid)[:, None, None])


def pool_with(monkeypatch: pytest.MonkeyPatch, choose: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Pool other tokens than all that are no padding, which are seen as before."""
    monkeypatch.setattr(
        "lychee_export.families.nemotron.llama.take_mean", lambda states, mask: take_mean(states, choose(mask))
    )


def pool_the_last_token(_: LoadedPairs, monkeypatch: pytest.MonkeyPatch) -> None:
    pool_with(monkeypatch, lambda mask: (mask.cumsum(1) == mask.sum(1, keepdim=True)) & (mask > 0))


def pool_the_first_token(_: LoadedPairs, monkeypatch: pytest.MonkeyPatch) -> None:
    pool_with(monkeypatch, lambda mask: torch.arange(mask.shape[1])[None].expand_as(mask) == 0)


def pool_the_padding_too(_: LoadedPairs, monkeypatch: pytest.MonkeyPatch) -> None:
    pool_with(monkeypatch, torch.ones_like)


def forget_the_temperature(loaded: LoadedPairs, _: pytest.MonkeyPatch) -> None:
    loaded.modules["scoring_head"].temperature = 1.0


def swap_query_and_document(loaded: LoadedPairs, _: pytest.MonkeyPatch) -> None:
    loaded.read_prompt(template="question:{document} \n \n passage:{query}")


def leave_a_space_out(loaded: LoadedPairs, _: pytest.MonkeyPatch) -> None:
    loaded.read_prompt(template="question:{query} \n\n passage:{document}")


def add_a_space(loaded: LoadedPairs, _: pytest.MonkeyPatch) -> None:
    loaded.read_prompt(template="question: {query} \n \n passage: {document}")


def forget_to_scale_the_frequencies(loaded: LoadedPairs, _: pytest.MonkeyPatch) -> None:
    decoder = loaded.modules["text_encoder"].decoder
    count = len(decoder.inverse_frequencies)
    decoder.inverse_frequencies = 500000.0 ** -(torch.arange(count) / count)


@pytest.mark.parametrize(
    "mutate",
    [
        read_forwards_only,
        see_the_padding,
        pool_the_last_token,
        pool_the_first_token,
        pool_the_padding_too,
        forget_the_temperature,
        swap_query_and_document,
        leave_a_space_out,
        add_a_space,
        forget_to_scale_the_frequencies,
    ],
)
def test_mutation_breaks_the_comparison(
    checkpoint_folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, mutate: Callable[..., None]
) -> None:
    loaded = load(checkpoint_folder("nemotron_reranker"))
    mutate(loaded, monkeypatch)
    with pytest.raises(AssertionError, match="Tensor-likes are not close"):
        assert_pairs_equal(loaded, loaded.run)

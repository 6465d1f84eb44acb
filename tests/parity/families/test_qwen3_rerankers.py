"""Qwen3-Rerankers against transformers: the client's inputs into modules and ONNX files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import BUILDERS
from checkpoints.exports import LIMITS
from checkpoints.qwen3_reference import load_qwen3_reranker
from checkpoints.qwen3_reranker import build_qwen3_classifier
from lychee_export.families import attention

from .text_pairs import (
    LONG_TEXT,
    QUERIES,
    SCORE_ATOL,
    LoadedPairs,
    assert_pairs_equal,
    assert_static_int8_is_refused,
    export_in,
    make_pairs,
    run_files,
)

NAMES = ["qwen3_reranker", "qwen3_reranker_shards", "qwen3_reranker_seq_cls"]


def load(folder: Path) -> LoadedPairs:
    """Load a checkpoint in transformers and in the exporter."""
    return LoadedPairs(folder, load_qwen3_reranker(folder, LIMITS.max_tokens))


@pytest.fixture(scope="module", params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    """Return each checkpoint's name in turn."""
    return str(request.param)


@pytest.fixture(scope="module")
def loaded(name: str, tmp_path_factory: pytest.TempPathFactory) -> LoadedPairs:
    """Build and load a checkpoint."""
    return load(BUILDERS[name](tmp_path_factory.mktemp("qwen3") / name))


def test_pairs_equal_transformers_for_every_batch(loaded: LoadedPairs) -> None:
    assert_pairs_equal(loaded, loaded.run)


def test_classifier_of_two_labels_gives_the_difference(tmp_path: Path) -> None:
    folder = build_qwen3_classifier(tmp_path / "qwen3_reranker", labels=2)
    loaded = load(folder)
    logits = loaded.reference.compute_logits(make_pairs(7))
    seen = loaded.run_all(loaded.run, make_pairs(7))["logits"][:, 0]
    torch.testing.assert_close(torch.from_numpy(seen), logits, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["qwen3_reranker"], indirect=True)
def test_files_equal_transformers_whatever_the_padding(loaded: LoadedPairs, exported: Callable[[str], Path]) -> None:
    run = run_files(exported("qwen3_reranker"))
    assert_pairs_equal(loaded, run)
    scores = [float(loaded.run_all(run, make_pairs(7)[:1], more=more)["relevance_score"][0, 0]) for more in (0, 32)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-6)
    longest = [(QUERIES[1], LONG_TEXT)]
    score = loaded.run_all(run, longest)["relevance_score"]
    assert float(score[0, 0]) == pytest.approx(float(loaded.reference.score(longest)), abs=SCORE_ATOL)


@pytest.mark.parametrize("name", ["qwen3_reranker"], indirect=True)
def test_tokens_are_those_of_the_model_card_and_a_long_document_loses_its_end(loaded: LoadedPairs) -> None:
    for pair in [*make_pairs(7), *((query, LONG_TEXT) for query in QUERIES)]:
        (row,) = loaded.tokenize([pair])
        expected = loaded.reference.tokenize([pair])["input_ids"][0].tolist()
        assert list(row.ids) == expected
        assert row.truncated == (len(expected) == loaded.reference.max_tokens)


def test_golden_pairs_have_the_scores_of_transformers(loaded: LoadedPairs) -> None:
    reference = loaded.checkpoint.make_reference()
    texts = [(str(pair.query.text), str(pair.document.text)) for pair in reference.golden_pairs]
    expected = [float(loaded.reference.score([text])) for text in texts]
    assert [pair.relevance_score for pair in reference.golden_pairs] == pytest.approx(expected, abs=2e-6)
    assert max(expected) - min(expected) > 0.1


@pytest.mark.parametrize(("precision", "target"), [("w8", "cpu"), ("w4", "cpu"), ("fp16", "cuda"), ("bf16", "cuda")])
def test_precisions_keep_scores_within_what_each_accepts(
    checkpoint_folder: Callable[[str], Path], tmp_path: Path, precision: Any, target: Any
) -> None:
    export_in(precision, target, checkpoint_folder("qwen3_reranker"), tmp_path / "models")


def test_static_int8_is_refused(checkpoint_folder: Callable[[str], Path], tmp_path: Path) -> None:
    assert_static_int8_is_refused(checkpoint_folder("qwen3_reranker"), tmp_path)


def see_the_future(loaded: LoadedPairs, _: pytest.MonkeyPatch) -> None:
    loaded.modules["text_encoder"].decoder.causal = False


def take_the_last_place(_: LoadedPairs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lychee_export.families.qwen3_reranker.take_last", lambda states, mask: states[:, -1])


def forget_the_padding_on_the_left(loaded: LoadedPairs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pad on the left, as the model card does, and do not mask it."""
    to_tensors = loaded.prompts.to_tensors

    def pad_left(texts: Any) -> Any:
        rows = to_tensors(texts)
        shift = int((rows["attention_mask"] == 0).sum(1).max())
        return {name: torch.from_numpy(value).roll(shift, 1).numpy() for name, value in rows.items()}

    monkeypatch.setattr(loaded.prompts, "to_tensors", pad_left)
    monkeypatch.setattr(
        "lychee_export.families.decoder.see_causally", lambda valid: attention.see_causally(torch.ones_like(valid))
    )


def swap_the_answers(loaded: LoadedPairs, _: pytest.MonkeyPatch) -> None:
    head = loaded.modules["scoring_head"]
    head.weight = -head.weight


def forget_the_thinking(loaded: LoadedPairs, _: pytest.MonkeyPatch) -> None:
    ids = loaded.checkpoint.card.spec.prompt.suffix_token_ids  # type: ignore[union-attr]
    loaded.read_prompt(suffix_token_ids=ids[:-4])


def forget_a_space(loaded: LoadedPairs, _: pytest.MonkeyPatch) -> None:
    change_the_prompt(loaded, "<Query>: {query}", "<Query>:{query}")


def swap_query_and_document(loaded: LoadedPairs, _: pytest.MonkeyPatch) -> None:
    change_the_prompt(loaded, "{query}\n<Document>: {document}", "{document}\n<Document>: {query}")


def forget_the_instruction(loaded: LoadedPairs, _: pytest.MonkeyPatch) -> None:
    change_the_prompt(loaded, "{instruction}", "")


def change_the_prompt(loaded: LoadedPairs, old: str, new: str) -> None:
    template = loaded.checkpoint.card.spec.prompt.template  # type: ignore[union-attr]
    assert old in template
    loaded.read_prompt(template=template.replace(old, new))


def forget_the_norm_of_queries(loaded: LoadedPairs, _: pytest.MonkeyPatch) -> None:
    for layer in loaded.modules["text_encoder"].decoder.layers:
        layer.self_attn.q_norm = torch.nn.Identity()


def turn_by_other_angles(loaded: LoadedPairs, _: pytest.MonkeyPatch) -> None:
    decoder = loaded.modules["text_encoder"].decoder
    count = len(decoder.inverse_frequencies)
    decoder.inverse_frequencies = 1e4 ** -(torch.arange(count) / count)


@pytest.mark.parametrize(
    "mutate",
    [
        see_the_future,
        take_the_last_place,
        forget_the_padding_on_the_left,
        swap_the_answers,
        forget_the_thinking,
        forget_a_space,
        swap_query_and_document,
        forget_the_instruction,
        forget_the_norm_of_queries,
        turn_by_other_angles,
    ],
)
def test_mutation_breaks_the_comparison(
    checkpoint_folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, mutate: Callable[..., None]
) -> None:
    loaded = load(checkpoint_folder("qwen3_reranker"))
    mutate(loaded, monkeypatch)
    with pytest.raises(AssertionError, match="Tensor-likes are not close"):
        assert_pairs_equal(loaded, loaded.run)

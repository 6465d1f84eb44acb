"""Text cross-encoders: what loading accepts, refuses and says."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import BUILDERS
from checkpoints.text_cross_encoder import (
    build_bert_reranker,
    build_modernbert_reranker,
    build_xlm_roberta_reranker,
)
from lychee_client.preprocessing.text import find_bucket
from lychee_export.contract.limits import Limits
from lychee_export.errors import CheckpointError
from lychee_export.families import load_checkpoint
from lychee_export.families.attention import attention_bias, local_bias
from msgspec import structs
from safetensors.torch import load_file, save_file

NAMES = ["bert_reranker", "modernbert_reranker", "roberta_reranker", "xlm_roberta_reranker"]


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Write a checkpoint, once per name."""
    return cache(lambda name: BUILDERS[name](tmp_path_factory.mktemp("checkpoints") / name))


@pytest.mark.parametrize("name", NAMES)
def test_dry_run_signs_the_same_contract_on_the_meta_device(build: Callable[[str], Path], name: str) -> None:
    dry = load_checkpoint(str(build(name)), weights=False)
    loaded = load_checkpoint(str(build(name)))
    assert [piece.signature for piece in dry.pieces] == [piece.signature for piece in loaded.pieces]
    assert structs.replace(dry.card.spec, revision=loaded.card.spec.revision) == loaded.card.spec
    assert {tensor.device.type for piece in dry.pieces for tensor in piece.module.parameters()} == {"meta"}


@pytest.mark.parametrize("name", NAMES)
def test_halved_encoders_stay_close_and_give_float32(build: Callable[[str], Path], name: str) -> None:
    for piece in load_checkpoint(str(build(name))).pieces:
        inputs = piece.sample_inputs(np.random.default_rng(0), 3)
        tensors = [torch.from_numpy(inputs[spec.name]) for spec in piece.signature.inputs]
        with torch.no_grad():
            expected, halved = piece.module(*tensors), piece.module.half()(*tensors)
        if piece.signature.encoder:
            assert halved.dtype == torch.float32
            torch.testing.assert_close(halved, expected, atol=2e-2, rtol=2e-2)
        else:
            assert [value.dtype for value in halved] == [torch.float32, torch.float32]


@pytest.mark.parametrize(("name", "positions"), [("bert_reranker", 128), ("xlm_roberta_reranker", 128)])
def test_pairs_are_as_long_as_the_positions_that_tokens_have(
    build: Callable[[str], Path], name: str, positions: int
) -> None:
    spec = load_checkpoint(str(build(name)), weights=False).card.spec
    assert (spec.text.max_tokens, spec.text.buckets[-2:]) == (positions, (120, positions))
    assert load_checkpoint(str(build(name)), Limits(max_tokens=64), weights=False).card.spec.text.max_tokens == 64


def test_long_pairs_have_lengths_of_their_own(tmp_path: Path) -> None:
    edit(build_modernbert_reranker(tmp_path) / "config.json", max_position_embeddings=8192)
    edit(tmp_path / "tokenizer_config.json", model_max_length=8192)
    limits = None, Limits(max_tokens=2048)
    specs = [load_checkpoint(str(tmp_path), limit, weights=False).card.spec for limit in limits]
    assert specs[0].text.buckets[-4:] == (6656, 7168, 7680, 8192)
    assert [spec.text.max_tokens for spec in specs] == [8192, 2048]
    assert [spec.checkpoint_limits and spec.checkpoint_limits.max_tokens for spec in specs] == [8192, 8192]


def test_padding_of_a_pair_stays_below_an_eighth_or_eight_tokens(tmp_path: Path) -> None:
    edit(build_modernbert_reranker(tmp_path) / "config.json", max_position_embeddings=8192)
    edit(tmp_path / "tokenizer_config.json", model_max_length=8192)
    text = load_checkpoint(str(tmp_path), weights=False).card.spec.text
    for tokens in range(text.buckets[0], text.max_tokens + 1):
        assert find_bucket(tokens, text) - tokens < max(8, tokens / 8)


@pytest.mark.parametrize("name", NAMES)
def test_runs_are_filled_by_tokens(build: Callable[[str], Path], name: str) -> None:
    encoder = next(
        piece for piece in load_checkpoint(str(build(name)), weights=False).pieces if piece.signature.encoder
    )
    assert encoder.signature.max_run_elements == 1024  # tokens: ids and mask have an element for each


def test_templates_hold_the_separators_of_each_tokenizer(build: Callable[[str], Path]) -> None:
    prompts = [load_checkpoint(str(build(name)), weights=False).card.spec.prompt for name in NAMES]
    joined = ["{query}[SEP]{document}", "{query}[SEP]{document}"] + 2 * ["{query}</s></s>{document}"]
    assert [prompt and prompt.template for prompt in prompts] == joined


@pytest.mark.parametrize(
    "activation", ["torch.nn.modules.linear.Identity", "torch.nn.modules.activation.Sigmoid", None]
)
@pytest.mark.parametrize("key", ["sentence_transformers", "sbert_ce_default_activation_function"])
def test_known_activations_are_accepted_and_the_identity_is_told(tmp_path: Path, activation: str, key: str) -> None:
    path = build_bert_reranker(tmp_path) / "config.json"
    value = {"activation_fn": activation} if key == "sentence_transformers" else activation
    edit(path, **({"sentence_transformers": None} | {key: value}))
    notes = load_checkpoint(str(tmp_path)).make_reference().notes
    assert bool(notes) == bool(activation and activation.endswith("Identity"))
    assert all("relevance_score is their sigmoid" in note for note in notes)


def of_another_class(folder: Path) -> None:
    edit(build_bert_reranker(folder) / "config.json", architectures=["BertModel"])


def of_own_code(folder: Path) -> None:
    code = {"AutoModelForSequenceClassification": "modeling_xlm_roberta.XLMRobertaFlashForSequenceClassification"}
    flash = ["XLMRobertaFlashForSequenceClassification"]
    edit(build_xlm_roberta_reranker(folder) / "config.json", architectures=flash, auto_map=code)


def of_an_unknown_type_with_code(folder: Path) -> None:
    code = {"AutoModelForSequenceClassification": "Alibaba-NLP/new-impl--modeling.NewForSequenceClassification"}
    edit(build_xlm_roberta_reranker(folder) / "config.json", model_type="new", auto_map=code)


def of_deberta(folder: Path) -> None:
    edit(build_bert_reranker(folder) / "config.json", model_type="deberta-v2")


def of_three_labels(folder: Path) -> None:
    labels = {"0": "contradiction", "1": "entailment", "2": "neutral"}
    edit(build_bert_reranker(folder) / "config.json", id2label=labels)


def of_no_labels(folder: Path) -> None:
    path = build_bert_reranker(folder) / "config.json"
    config = json.loads(path.read_text())
    del config["id2label"], config["label2id"]
    path.write_text(json.dumps(config))


def without_its_head(folder: Path) -> None:
    path = build_bert_reranker(folder) / "model.safetensors"
    weights = load_file(path)
    del weights["classifier.weight"], weights["bert.pooler.dense.bias"]
    save_file(weights, path, metadata={"format": "pt"})


def of_relative_positions(folder: Path) -> None:
    edit(build_bert_reranker(folder) / "config.json", position_embedding_type="relative_key")


def of_another_activation(folder: Path) -> None:
    edit(build_bert_reranker(folder) / "config.json", sentence_transformers={"activation_fn": "torch.nn.Softplus"})


def with_three_separators(folder: Path) -> None:
    path = build_xlm_roberta_reranker(folder) / "tokenizer.json"
    edit(folder / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
    content = json.loads(path.read_text())
    pair = content["post_processor"]["pair"]
    content["post_processor"]["pair"] = [*pair[:3], pair[2], *pair[3:]]
    path.write_text(json.dumps(content))


def whose_normalizer_is_dropped(folder: Path) -> None:
    edit(build_xlm_roberta_reranker(folder) / "tokenizer.json", normalizer={"type": "NFKC"})


def of_growing_frequencies(folder: Path) -> None:
    rope = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}
    edit(build_modernbert_reranker(folder) / "config.json", rope_parameters={"full_attention": rope})


BAD: dict[str, tuple[Callable[[Path], None], str]] = {
    "another class": (
        of_another_class,
        r"architectures is \['BertModel'\], expected \['BertForSequenceClassification'\]",
    ),
    "code of its own": (
        of_own_code,
        r"XLMRobertaFlashForSequenceClassification.*Python code of its own .* is never run here.*Take a reranker",
    ),
    "code of an unknown type": (
        of_an_unknown_type_with_code,
        r"unknown model_type 'new'.*brings Python code of its own .*NewForSequenceClassification.* is never run here",
    ),
    "DeBERTa": (of_deberta, r"unknown model_type 'deberta-v2'; this exporter knows .*bert, .*ms-marco-MiniLM"),
    "three labels": (of_three_labels, r"the head has 3 labels .*'contradiction'.*, expected 1: .*trained for ranking"),
    "no labels": (of_no_labels, r"the head has 2 labels \(no id2label\), expected 1"),
    "no head": (
        without_its_head,
        r"lack what BertForSequenceClassification needs: bert\.pooler\.dense\.bias, classifier\.weight",
    ),
    "relative positions": (of_relative_positions, r"position_embedding_type is 'relative_key' .* expected 'absolute'"),
    "another activation": (
        of_another_activation,
        r"activation 'torch\.nn\.Softplus', expected one of torch\.nn\.Ident",
    ),
    "three separators": (
        with_three_separators,
        r"joins 'a' and 'b' to \[.*'</s>', '</s>', '</s>'.*\]; expected one or",
    ),
    "dropped normalizer": (whose_normalizer_is_dropped, r"has a normalizer \(NFKC\), which transformers \S+ drops"),
    "growing frequencies": (of_growing_frequencies, r"rotary positions of the types \['dynamic'\].* are not supported"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_scored_is_refused_with_what_was_seen(tmp_path: Path, name: str) -> None:
    make, message = BAD[name]
    make(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(str(tmp_path))


def test_local_bias_lets_a_token_read_its_neighbours_and_padding_itself() -> None:
    mask = torch.tensor([[1, 1, 1, 0, 0]])
    bias = local_bias(attention_bias(mask, torch.float32), 1)
    seen = (bias[0, 0] == 0).to(torch.int64)
    expected = [[1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [0, 1, 1, 0, 0], [0, 0, 1, 1, 0], [0, 0, 0, 0, 1]]
    assert seen.tolist() == expected

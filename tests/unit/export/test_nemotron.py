"""Llama Nemotron rerankers: what loading accepts, refuses and says."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import BUILDERS
from checkpoints.nemotron import build_nemotron_reranker, edit
from lychee_export.contract.limits import Limits
from lychee_export.errors import CheckpointError
from lychee_export.families import load_checkpoint
from msgspec import structs
from safetensors.torch import load_file, save_file

NAMES = ["nemotron_reranker"]


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


def test_code_of_the_checkpoint_is_never_run(build: Callable[[str], Path]) -> None:
    folder = build("nemotron_reranker")
    assert "raise RuntimeError" in (folder / "llama_bidirectional_model.py").read_text()
    assert load_checkpoint(str(folder)).card.spec.family == "nemotron"


def test_prompt_is_that_of_the_model_card(build: Callable[[str], Path]) -> None:
    prompt = load_checkpoint(str(build("nemotron_reranker")), weights=False).card.spec.prompt
    assert prompt is not None
    assert prompt.template == "question:{query} \n \n passage:{document}"
    assert (prompt.queries, prompt.documents) == (("text",), ("text",))


def test_pairs_are_as_long_as_the_model_was_trained_for(tmp_path: Path) -> None:
    edit(build_nemotron_reranker(tmp_path) / "config.json", max_position_embeddings=131072)
    limits = None, Limits(max_tokens=512)
    specs = [load_checkpoint(str(tmp_path), limit, weights=False).card.spec for limit in limits]
    assert [spec.text.max_tokens for spec in specs] == [8192, 512]
    assert [spec.checkpoint_limits and spec.checkpoint_limits.max_tokens for spec in specs] == [8192, 8192]


def test_tokenizer_without_padding_takes_the_last_token(tmp_path: Path) -> None:
    edit(build_nemotron_reranker(tmp_path) / "tokenizer_config.json", pad_token=None)
    spec = load_checkpoint(str(tmp_path), weights=False).card.spec
    assert spec.text.pad_token_id == json.loads((tmp_path / "config.json").read_text())["eos_token_id"]


def test_checkpoint_without_pooling_and_temperature_has_the_defaults_of_its_class(tmp_path: Path) -> None:
    edit(build_nemotron_reranker(tmp_path) / "config.json", pooling=None, temperature=None)
    head = load_checkpoint(str(tmp_path), weights=False).pieces[-1].module
    assert head.temperature == 1.0


@pytest.mark.parametrize("value", ["llama_bidirectional_model", "nvidia/llama-nemotron-rerank-1b-v2--modeling"])
def test_classes_of_nvidia_are_known_by_name_wherever_their_file_lies(tmp_path: Path, value: str) -> None:
    code = {"AutoModelForSequenceClassification": [f"{value}.LlamaBidirectionalForSequenceClassification", None]}
    edit(build_nemotron_reranker(tmp_path) / "config.json", auto_map=code)
    assert load_checkpoint(str(tmp_path), weights=False).card.spec.family == "nemotron"


def config(**changes: Any) -> Callable[[Path], None]:
    """Return what builds a text reranker and changes its config.json."""

    def build(folder: Path) -> None:
        edit(build_nemotron_reranker(folder) / "config.json", **changes)

    return build


def without_its_head(folder: Path) -> None:
    path = build_nemotron_reranker(folder) / "model.safetensors"
    weights = load_file(path)
    del weights["score.weight"]
    save_file(weights, path, metadata={"format": "pt"})


def with_more_tokens_than_embeddings(folder: Path) -> None:
    path = build_nemotron_reranker(folder) / "model.safetensors"
    weights = load_file(path)
    weights["model.embed_tokens.weight"] = weights["model.embed_tokens.weight"][:-1].clone()
    save_file(weights, path, metadata={"format": "pt"})
    edit(folder / "config.json", vocab_size=len(weights["model.embed_tokens.weight"]), pad_token_id=0)


DYNAMIC = {"rope_type": "dynamic", "factor": 2.0}
THREE = {"0": "contradiction", "1": "entailment", "2": "neutral"}
BAD: dict[str, tuple[Callable[[Path], None], str]] = {
    "an embedding model": (
        config(architectures=["LlamaBidirectionalModel"]),
        r"architectures is \['LlamaBidirectionalModel'\], expected \['LlamaBidirectionalForSequenceClassification'\]",
    ),
    "no architecture": (config(architectures=None), r"architectures is None, expected"),
    "unknown code": (
        config(auto_map={"AutoModelForSequenceClassification": "modeling_better.BetterForSequenceClassification"}),
        r"auto_map asks for the Python classes \['BetterForSequenceClassification'\].* is never run here",
    ),
    "an unknown tokenizer beside known code": (
        config(auto_map={"AutoConfig": "a.LlamaBidirectionalConfig", "AutoTokenizer": ["b.OwnTokenizer", None]}),
        r"auto_map asks for the Python classes \['OwnTokenizer'\]",
    ),
    "the last token": (config(pooling="last"), r"pooling is 'last', expected 'avg'"),
    "causal": (config(is_causal=True), r"is_causal is True, expected False"),
    "no temperature": (config(temperature=0), r"temperature is 0, expected a number above 0"),
    "a temperature of text": (config(temperature="low"), r"temperature is 'low', expected a number above 0"),
    "three labels": (config(id2label=THREE), r"the head has 3 labels .*'contradiction'.*, expected 1"),
    "no labels": (config(id2label=None, label2id=None), r"the head has 2 labels \(no id2label\), expected 1"),
    "growing frequencies": (config(rope_scaling=DYNAMIC), r"rotary positions of the type 'dynamic'; dynamic and"),
    "no head": (without_its_head, r"lack what LlamaForSequenceClassification needs: score\.weight"),
    "another tokenizer": (with_more_tokens_than_embeddings, r"has \d+ tokens, the model has embeddings for \d+"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_scored_is_refused_with_what_was_seen(tmp_path: Path, name: str) -> None:
    make, message = BAD[name]
    make(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(str(tmp_path))

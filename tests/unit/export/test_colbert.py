"""ColBERT: what loading accepts, refuses and says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import BUILDERS
from checkpoints.colbert import (
    build_answerai_colbert,
    build_colbert,
    build_jina_colbert,
    build_lateon,
    build_modern_colbert,
    build_pylate_colbert,
)
from lychee_client.manifest import LateInteractionSpec, ModelSpec, describe_reading
from lychee_export.checkpoint.lookup import find_checkpoint
from lychee_export.contract.limits import Limits
from lychee_export.errors import CheckpointError
from lychee_export.families import colbert, load_checkpoint
from msgspec import structs
from safetensors.torch import load_file, save_file

NAMES = ["colbert", "answerai_colbert", "jina_colbert", "pylate_colbert", "modern_colbert", "lateon"]


def edit(path: Path, **changes: Any) -> None:
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in content.items() if value is not KeyError}))


def describe(folder: Path) -> tuple[ModelSpec, LateInteractionSpec]:
    """Return what the client is told."""
    spec = load_checkpoint(str(folder), weights=False).card.spec
    assert spec.late_interaction is not None
    return spec, spec.late_interaction


@pytest.mark.parametrize("name", NAMES)
def test_dry_run_signs_the_same_contract_on_the_meta_device(tmp_path: Path, name: str) -> None:
    folder = str(BUILDERS[name](tmp_path))
    dry, loaded = load_checkpoint(folder, weights=False), load_checkpoint(folder)
    assert [piece.signature for piece in dry.pieces] == [piece.signature for piece in loaded.pieces]
    assert structs.replace(dry.card.spec, revision=loaded.card.spec.revision) == loaded.card.spec
    assert {tensor.device.type for piece in dry.pieces for tensor in piece.module.parameters()} == {"meta"}


@pytest.mark.parametrize("name", NAMES)
def test_halved_encoder_stays_close(tmp_path: Path, name: str) -> None:
    piece, head = load_checkpoint(str(BUILDERS[name](tmp_path))).pieces
    inputs = piece.sample_inputs(np.random.default_rng(0), 4)
    tensors = [torch.from_numpy(inputs[spec.name]) for spec in piece.signature.inputs]
    with torch.no_grad():
        expected, halved = piece.module(*tensors), piece.module.half()(*tensors)
    assert (expected.dtype, halved.dtype) == (torch.float16, torch.float16)
    torch.testing.assert_close(halved, expected, atol=2e-2, rtol=2e-2)
    assert not list(head.module.parameters())


def test_settings_of_the_checkpoint_decide(tmp_path: Path) -> None:
    spec = load_checkpoint(str(build_answerai_colbert(tmp_path)), weights=False).card.spec
    late = spec.late_interaction
    assert late is not None
    assert (spec.family, spec.pipeline, spec.embedding_dim) == ("colbert", "late_interaction", 96)
    assert (spec.text.max_tokens, late.query_tokens, late.attends_to_fill) == (64, 24, True)
    edit(tmp_path / "artifact.metadata", mask_punctuation=False, doc_maxlen=KeyError)
    spec = load_checkpoint(str(tmp_path), Limits(max_tokens=96), weights=False).card.spec
    assert spec.late_interaction is not None
    assert spec.late_interaction.skipped_token_ids == (spec.text.pad_token_id,)
    assert spec.text.max_tokens == 96
    assert list(describe_reading(spec)) == [
        "queries: at most 24 tokens",
        "texts: at most 96 tokens of a document instead of 128; a larger --max-tokens at export keeps more",
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"similarity": "l2"}, r"similarity is 'l2'; only 'cosine' is supported"),
        ({"query_maxlen": "32"}, r"query_maxlen is '32', expected a int"),
        ({"query_maxlen": 3}, r"query_maxlen is 3; expected at least 4"),
        ({"dim": 0}, r"dim is 0; expected at least 1"),
        ({"doc_token_id": "[unused0]"}, r"marked by '\[unused0\]' and documents by '\[unused0\]'; expected two tokens"),
        ({"query_maxlen": 100}, r"query_maxlen is 100, and texts have at most 90 tokens"),
        ({"query_token_id": "[Q]"}, r"names the token '\[Q\]', which the tokenizer lacks"),
        ({"dim": 64}, r"linear\.weight is \(128, 32\), expected \(64, 32\)"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    edit(build_colbert(tmp_path) / "artifact.metadata", **changes)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(str(tmp_path))


def test_checkpoint_without_settings_is_refused(tmp_path: Path) -> None:
    (build_colbert(tmp_path) / "artifact.metadata").unlink()
    with pytest.raises(CheckpointError, match=r"artifact\.metadata is missing or empty; it says how long queries"):
        load_checkpoint(str(tmp_path))


def test_checkpoint_without_the_linear_layer_is_refused(tmp_path: Path) -> None:
    path = build_colbert(tmp_path) / "model.safetensors"
    weights = load_file(path)
    del weights["linear.weight"]
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"lack what HF_ColBERT needs: linear\.weight"):
        load_checkpoint(str(tmp_path))


def test_other_positions_are_refused(tmp_path: Path) -> None:
    edit(build_colbert(tmp_path) / "config.json", position_embedding_type="relative_key")
    with pytest.raises(CheckpointError, match=r"position_embedding_type is 'relative_key'"):
        load_checkpoint(str(tmp_path))


def test_plain_bert_of_a_sentence_transformer_is_no_reranker(tmp_path: Path) -> None:
    edit(build_colbert(tmp_path) / "config.json", architectures=["BertModel"])
    with pytest.raises(CheckpointError, match=r"architectures is \['BertModel'\], expected"):
        load_checkpoint(str(tmp_path))


def test_settings_of_jina_decide(tmp_path: Path) -> None:
    spec, late = describe(build_jina_colbert(tmp_path))
    tokens = json.loads((tmp_path / "tokenizer.json").read_text())["added_tokens"]
    ids = {token["content"]: token["id"] for token in tokens}
    assert (late.query_marker, late.document_marker) == (ids["[QueryMarker]"], ids["[DocumentMarker]"])
    assert (late.fill_token_id, late.attends_to_fill, late.query_tokens) == (ids["<mask>"], True, 32)
    assert (spec.text.max_tokens, spec.text.pad_token_id, spec.embedding_dim) == (90, 1, 128)


def test_base_of_rotary_positions_that_is_not_said_is_the_one_of_the_authors_code(tmp_path: Path) -> None:
    path = build_jina_colbert(tmp_path) / "config.json"
    for said, expected in ((20000.0, 20000.0), (KeyError, 10000.0)):
        edit(path, rotary_emb_base=said)
        assert find_checkpoint(str(tmp_path)).config["rope_parameters"]["rope_theta"] == expected


def test_settings_of_pylate_decide(tmp_path: Path) -> None:
    spec, late = describe(build_modern_colbert(tmp_path))
    vocabulary = json.loads((tmp_path / "tokenizer.json").read_text())
    ids = vocabulary["model"]["vocab"] | {token["content"]: token["id"] for token in vocabulary["added_tokens"]}
    assert (late.query_marker, late.document_marker) == (ids["[Q] "], ids["[D] "])
    assert (late.fill_token_id, spec.text.pad_token_id) == (ids["[MASK]"], ids["[MASK]"])
    assert spec.text.max_tokens == 90  # the tokenizer's own 89 are those of a text without a marker
    assert (late.query_tokens, late.attends_to_fill, spec.embedding_dim) == (32, False, 128)
    path = tmp_path / "config_sentence_transformers.json"
    edit(path, skiplist_words=["!", "cat"], query_length=None, document_length=64, attend_to_expansion_tokens=True)
    spec, late = describe(tmp_path)
    assert late.skipped_token_ids == (ids["[UNK]"], ids["!"])  # PyLate takes the id of whatever is unknown, too
    assert (late.query_tokens, late.attends_to_fill, spec.text.max_tokens) == (32, True, 64)
    edit(path, do_query_expansion=False, skiplist_words=None)
    assert not describe(tmp_path)[1].attends_to_fill
    assert len(describe(tmp_path)[1].skipped_token_ids) == 32


def test_prompts_of_pylate_stand_before_texts_and_are_told(tmp_path: Path) -> None:
    prompts = {"query": "search_query: ", "document": "search_document: "}
    edit(build_lateon(tmp_path) / "config_sentence_transformers.json", prompts=prompts)
    loaded = load_checkpoint(str(tmp_path))
    text = loaded.card.spec.text
    assert (text.query_prefix, text.document_prefix) == ("search_query: ", "search_document: ")
    (note,) = loaded.make_reference().notes
    assert "'search_query: ' for queries, 'search_document: ' for documents" in note


def test_weights_of_all_modules_name_the_revision(tmp_path: Path) -> None:
    path = build_lateon(tmp_path) / "2_Dense" / "model.safetensors"
    first = load_checkpoint(str(tmp_path)).card.spec.revision
    weights = load_file(path)
    save_file({name: weight + 1 for name, weight in weights.items()}, path)
    assert load_checkpoint(str(tmp_path)).card.spec.revision != first


def test_folder_of_both_layouts_is_read_by_that_of_the_authors(tmp_path: Path) -> None:
    build_pylate_colbert(tmp_path)
    model = tmp_path / "model.safetensors"
    weights = {f"bert.{name}": weight for name, weight in load_file(model).items()}
    weights["linear.weight"] = load_file(tmp_path / "1_Dense" / "model.safetensors")["linear.weight"]
    save_file(weights, model, metadata={"format": "pt"})
    edit(tmp_path / "config.json", architectures=["HF_ColBERT"])
    later = load_checkpoint(str(tmp_path)).make_reference()
    settings = {"dim": 96, "doc_maxlen": 90, "query_maxlen": 24, "attend_to_mask_tokens": True}
    (tmp_path / "artifact.metadata").write_text(json.dumps(settings))
    assert describe(tmp_path)[1].query_tokens == 24
    edit(tmp_path / "artifact.metadata", query_maxlen=32)
    assert load_checkpoint(str(tmp_path)).make_reference().golden_pairs == later.golden_pairs


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        (
            "config_sentence_transformers.json",
            {"similarity_fn_name": "dot"},
            r"similarity_fn_name is 'dot'; only 'MaxSim'",
        ),
        (
            "config_sentence_transformers.json",
            {"query_prefix": ""},
            r"queries are marked by '' and .* expected two tokens",
        ),
        (
            "config_sentence_transformers.json",
            {"query_prefix": "[Q]"},
            r"names the token '\[Q\]', which the tokenizer lacks",
        ),
        ("config_sentence_transformers.json", {"query_length": "32"}, r"query_length is '32', expected a int"),
        ("config_sentence_transformers.json", {"query_length": 3}, r"query_length is 3; expected at least 4"),
        (
            "config_sentence_transformers.json",
            {"document_length": 30},
            r"query_length is 32, and texts have at most 30",
        ),
        ("config_sentence_transformers.json", {"query_length": 40}, r"see 32 tokens to either side.*to at most 33"),
        (
            "config_sentence_transformers.json",
            {"skiplist_words": [1]},
            r"skiplist_words and prompts hold \[1, .*expected texts",
        ),
        ("config_sentence_transformers.json", {"default_prompt_name": "query"}, r"default_prompt_name is 'query'"),
        ("sentence_bert_config.json", {"do_lower_case": True}, r"do_lower_case is True, expected False"),
        (
            "1_Dense/config.json",
            {"activation_function": "torch.nn.modules.activation.Tanh"},
            r"activation\.Tanh', expected",
        ),
        ("1_Dense/config.json", {"in_features": 48}, r"in_features is 48, and what it is given has 32 numbers"),
        ("1_Dense/config.json", {"out_features": None}, r"does not say in_features and out_features"),
        ("1_Dense/config.json", {"bias": True}, r"expected .*'linear\.bias': \(128,\)"),
        ("1_Dense/config.json", {"use_residual": True}, r"expected .*'residual\.weight': \(128, 32\)"),
        (
            "config.json",
            {"architectures": ["ModernBertForMaskedLM"]},
            r"architectures is \['ModernBertForMaskedLM'\], expected",
        ),
        (
            "config.json",
            {"model_type": "lfm2"},
            r"a ColBERT model of model_type 'lfm2'; expected one of bert, jina_emb",
        ),
        (
            "config.json",
            {"auto_map": {"AutoModel": "own--modeling.ModernBertModel"}},
            r"never run here.* such as colbert-ir",
        ),
    ],
)
def test_files_of_pylate_that_cannot_be_used_are_refused(
    tmp_path: Path, file: str, changes: dict[str, Any], message: str
) -> None:
    edit(build_modern_colbert(tmp_path) / file, **changes)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(str(tmp_path))


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        (["sentence_transformers.models.Transformer"], r"is made of sentence_transformers\.models\.Transformer in"),
        (["sentence_transformers.models.Transformer", "own.models.Dense"], r"own\.models\.Dense in the folders"),
        (["sentence_transformers.models.Transformer", "sentence_transformers.models.Pooling"], r"models\.Pooling in"),
    ],
)
def test_other_modules_are_refused(tmp_path: Path, kinds: list[str], message: str) -> None:
    paths = ["", "1_Dense"]
    modules = [{"path": path, "type": kind} for path, kind in zip(paths, kinds, strict=False)]
    (build_modern_colbert(tmp_path) / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(str(tmp_path))


def test_linear_layer_without_weights_is_refused(tmp_path: Path) -> None:
    path = build_modern_colbert(tmp_path) / "1_Dense" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(CheckpointError, match=r"1_Dense/model\.safetensors is truncated"):
        load_checkpoint(str(tmp_path))
    path.unlink()
    with pytest.raises(CheckpointError, match=r"1_Dense holds no weights"):
        load_checkpoint(str(tmp_path))


def test_pickled_linear_layer_is_read(tmp_path: Path) -> None:
    path = build_modern_colbert(tmp_path) / "1_Dense" / "model.safetensors"
    expected = load_checkpoint(str(tmp_path)).make_reference().golden_pairs
    torch.save(load_file(path), path.with_name("pytorch_model.bin"))
    path.unlink()
    assert load_checkpoint(str(tmp_path)).make_reference().golden_pairs == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lora_adaptations": ["retrieval.query"]}, r"sets \{'lora_adaptations': \['retrieval\.query'\]\}"),
        ({"rotary_emb_interleaved": True}, r"sets \{'rotary_emb_interleaved': True\}"),
        ({"position_embedding_type": "alibi"}, r"position_embedding_type is 'alibi', expected 'rotary'"),
        ({"layer_norm_eps": KeyError}, r"does not say layer_norm_eps"),
        ({"model_type": "roberta"}, r"model_type 'roberta'.*never run here"),
        (
            {"auto_map": {"AutoModel": "jinaai/jina-bert-implementation--modeling_bert.JinaBertModel"}},
            r"never run here",
        ),
        (
            {"auto_map": {"AutoModel": "jinaai/xlm-roberta-flash-implementation--modeling_lora.XLMRobertaLoRA"}},
            r"modeling_lora\.XLMRobertaLoRA\), which is never run here",
        ),
    ],
)
def test_other_code_of_jina_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    edit(build_jina_colbert(tmp_path) / "config.json", **changes)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(str(tmp_path))


def test_late_interaction_of_images_is_left_to_others(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "colpali", "architectures": ["ColPaliForRetrieval"]})
    )
    (tmp_path / "modules.json").write_text("[]")
    assert not colbert.FAMILY.claims(find_checkpoint(str(tmp_path)))

"""ColBERT: what loading accepts, refuses and says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints.colbert import build_answerai_colbert, build_colbert
from lychee_client.manifest import describe_reading
from lychee_export.contract.limits import Limits
from lychee_export.errors import CheckpointError
from lychee_export.families import load_checkpoint
from msgspec import structs
from safetensors.torch import load_file, save_file


def edit(path: Path, **changes: Any) -> None:
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in content.items() if value is not KeyError}))


def test_dry_run_signs_the_same_contract_on_the_meta_device(tmp_path: Path) -> None:
    folder = str(build_colbert(tmp_path))
    dry, loaded = load_checkpoint(folder, weights=False), load_checkpoint(folder)
    assert [piece.signature for piece in dry.pieces] == [piece.signature for piece in loaded.pieces]
    assert structs.replace(dry.card.spec, revision=loaded.card.spec.revision) == loaded.card.spec
    assert {tensor.device.type for piece in dry.pieces for tensor in piece.module.parameters()} == {"meta"}


def test_halved_encoder_stays_close(tmp_path: Path) -> None:
    piece, head = load_checkpoint(str(build_colbert(tmp_path))).pieces
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
        ({"query_maxlen": 3}, r"query_maxlen is 3 and dim 128; expected at least 4 and 1"),
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

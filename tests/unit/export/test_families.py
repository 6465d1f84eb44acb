import copy
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lychee_export.errors import CheckpointError
from lychee_export.families import Checkpoint, lychee_mini
from lychee_export.families import load_checkpoint as load
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer

BUNDLED = Path(lychee_mini.__file__).parent.parent / "checkpoint" / "bundled" / "lychee_mini"
TOLERANCE = 1e-5
"""Of torch in float32 on a CPU, absolute; measured 5e-7."""


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """Return a copy of the bundled checkpoint that a test may damage."""
    return Path(shutil.copytree(BUNDLED, tmp_path / "checkpoint"))


def test_dequantize_unpacks_low_nibble_first() -> None:
    qweight = np.full((1, 16), 0x9A, np.uint8)
    weights = lychee_mini.dequantize(qweight, np.array([[0.5]], np.float16))
    assert weights.shape == (1, 32)
    assert weights[0, :4].tolist() == [1.0, 0.5, 1.0, 0.5]


def test_dequantize_uses_one_scale_per_block_of_32() -> None:
    qweight = np.full((1, 32), 0x99, np.uint8)
    weights = lychee_mini.dequantize(qweight, np.array([[1.0, 2.0]], np.float16))
    assert weights[0].tolist() == [1.0] * 32 + [2.0] * 32


def largest_text_error(checkpoint: Checkpoint, encoder: torch.nn.Module) -> float:
    """Embed the reference's texts one by one; return the largest difference of an element."""
    reference = np.load(BUNDLED / "reference.npz")
    tokenizer = Tokenizer.from_str(checkpoint.card.tokenizer_json)
    ids = [torch.tensor([tokenizer.encode(str(text)).ids]) for text in reference["texts"]]
    with torch.no_grad():
        embeddings = torch.cat([encoder(row, torch.ones_like(row)) for row in ids])
    return float(np.abs(embeddings.numpy() - reference["text_embedding"]).max())


def test_encoders_and_head_match_the_reference_values(checkpoint: Checkpoint) -> None:
    modules = {piece.signature.name: piece.module for piece in checkpoint.pieces}
    reference = np.load(BUNDLED / "reference.npz")
    queries = [index for index, text in enumerate(reference["texts"]) if text.startswith("query: ")]
    with torch.no_grad():
        images = modules["vision_encoder"](torch.from_numpy(reference["pixel_values"]))
        embeddings = torch.from_numpy(reference["text_embedding"][queries])
        pairs = [(query[None], image[None]) for query in embeddings for image in images]
        scores = torch.cat([modules["scoring_heads"].heads["image"](*pair)[0] for pair in pairs])
    assert largest_text_error(checkpoint, modules["text_encoder"]) < TOLERANCE
    np.testing.assert_allclose(images.numpy(), reference["image_embedding"], atol=TOLERANCE, rtol=0)
    expected = reference["image_score"]
    np.testing.assert_allclose(scores.numpy().reshape(expected.shape), expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("removed", [[], [0], [1]], ids=["none", "first alone", "second alone"])
def test_reference_values_catch_a_direction_that_is_not_removed(checkpoint: Checkpoint, removed: list[int]) -> None:
    encoder = copy.deepcopy(next(piece.module for piece in checkpoint.pieces if piece.signature.name == "text_encoder"))
    encoder.removed_directions = encoder.removed_directions[removed]
    assert largest_text_error(checkpoint, encoder) > 1000 * TOLERANCE


def test_embeddings_of_texts_and_images_hold_no_removed_direction(checkpoint: Checkpoint) -> None:
    encoder = next(piece.module for piece in checkpoint.pieces if piece.signature.name == "text_encoder")
    directions = encoder.removed_directions.numpy()
    reference = np.load(BUNDLED / "reference.npz")
    np.testing.assert_allclose(directions @ directions.T, np.eye(2), atol=1e-6)
    assert np.abs(reference["text_embedding"] @ directions.T).max() < 1e-6
    assert np.abs(reference["image_embedding"] @ directions.T).max() < 1e-4  # the projection is stored as float16


@pytest.mark.parametrize("modality", ["text", "image", "image_text"])
def test_head_gives_logits_before_the_sigmoid(checkpoint: Checkpoint, modality: str) -> None:
    constants = json.loads((BUNDLED / "config.json").read_text())["scoring_head"][modality]
    heads = next(piece.module for piece in checkpoint.pieces if piece.signature.name == "scoring_heads")
    query = torch.zeros(2, 384)
    query[:, 0] = 1
    document = 0.5 * query
    document[1] *= -1
    relevance_score, logits = heads.heads[modality](query, *[document] * modality.count("_"), document)
    scale = constants.get("text_scale", 0) + constants.get("image_scale", 0)
    expected = torch.tensor([[0.5 * scale + constants["bias"]], [-0.5 * scale + constants["bias"]]])
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(relevance_score, expected.sigmoid(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("count", [0, 1])
def test_ensemble_without_score_and_logits_is_refused(toy: Checkpoint, count: int) -> None:
    (ensemble,) = toy.card.ensembles
    with pytest.raises(ValueError, match=r"rerank: an ensemble gives .*relevance_score.*logits.*, got "):
        replace(toy.card, ensembles=(replace(ensemble, outputs=ensemble.outputs[:count]),))


def test_unknown_name_lists_the_bundled_checkpoints(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="bundled names: lychee-mini"):
        load(str(tmp_path / "nowhere"))


def test_unknown_family_lists_the_known_ones(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    with pytest.raises(CheckpointError, match=r"unknown model_type 'gpt2'.*lychee_mini"):
        load(str(tmp_path))


def test_config_that_is_not_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json is not JSON"):
        load(str(tmp_path))


def test_truncated_weights_are_reported(broken: Path) -> None:
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="cannot read the weights"):
        load(str(broken))


def test_missing_tokenizer_is_reported(broken: Path) -> None:
    (broken / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"incomplete or inconsistent.*tokenizer\.json"):
        load(str(broken))


def test_config_that_does_not_fit_the_weights_is_reported(broken: Path) -> None:
    config = json.loads((broken / "config.json").read_text())
    config["text_encoder"]["num_hidden_layers"] = 11
    (broken / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="incomplete or inconsistent"):
        load(str(broken))


def test_checkpoint_without_removed_directions_is_refused(broken: Path) -> None:
    tensors = load_file(broken / "model.safetensors")
    del tensors["text_encoder.removed_directions"]
    save_file(tensors, broken / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"model\.safetensors has no text_encoder\.removed_directions.*bundled"):
        load(str(broken))


def test_config_without_removed_directions_is_refused(broken: Path) -> None:
    config = json.loads((broken / "config.json").read_text())
    del config["text_encoder"]["removed_directions"]
    (broken / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"config\.json has no text_encoder\.removed_directions.*bundled"):
        load(str(broken))


@pytest.mark.parametrize(("rows", "columns"), [(1, 384), (3, 384), (2, 383)])
def test_removed_directions_of_another_shape_are_refused(broken: Path, rows: int, columns: int) -> None:
    tensors = load_file(broken / "model.safetensors")
    tensors["text_encoder.removed_directions"] = np.eye(rows, columns, dtype=np.float32)
    save_file(tensors, broken / "model.safetensors")
    message = rf"removed_directions has shape \({rows}, {columns}\), expected \(2, 384\) by config\.json"
    with pytest.raises(CheckpointError, match=message):
        load(str(broken))


def test_golden_pairs_cover_every_modality_and_tell_match_from_mismatch(checkpoint: Checkpoint) -> None:
    pairs = checkpoint.make_reference().golden_pairs
    kinds = {(pair.document.text is not None, pair.document.image_png is not None) for pair in pairs}
    assert kinds == {(True, False), (False, True), (True, True)}
    scores = [pair.relevance_score for pair in pairs]
    assert max(scores) > 0.9
    assert min(scores) < 0.1


def test_golden_pairs_of_every_modality_include_one_that_moves_with_small_faults(checkpoint: Checkpoint) -> None:
    pairs = checkpoint.make_reference().golden_pairs
    sensitive = [pair for pair in pairs if 0.2 < pair.relevance_score < 0.8]
    kinds = {(pair.document.text is not None, pair.document.image_png is not None) for pair in sensitive}
    assert kinds == {(True, False), (False, True), (True, True)}

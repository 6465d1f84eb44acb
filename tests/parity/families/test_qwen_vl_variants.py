"""A LoRA adapter and classifiers of the Qwen-VL rerankers, against the models that they came from."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from checkpoints.exports import LIMITS
from checkpoints.qwen_vl import build_monoqwen, build_qwen2_5_vl, build_qwen3_vl
from checkpoints.qwen_vl_pairs import PAIRS_OF, to_input
from checkpoints.qwen_vl_reference import QwenReranker
from checkpoints.qwen_vl_variants import (
    build_adapter,
    build_monoqwen_adapter,
    build_qwen2_5_vl_classifier,
    build_qwen3_vl_classifier,
    merge_by_hand,
)
from lychee_client.manifest import PatchSpec
from lychee_export.checkpoint.reading import Reading
from lychee_export.errors import CheckpointError
from lychee_export.exporter import export_checkpoint
from lychee_export.families import Checkpoint, load_checkpoint
from lychee_export.verification.in_process import in_process_client
from lychee_export.verification.reference import reference_scores
from safetensors.torch import load_file, save_file

SCORE_ATOL = 1e-4


def largest_difference(checkpoint: Checkpoint, original: Path, name: str) -> float:
    """Return the largest difference of the modules' scores from those of a checkpoint in transformers."""
    spec = checkpoint.card.spec.image
    assert isinstance(spec, PatchSpec)
    modules = {piece.signature.name: piece.module for piece in checkpoint.pieces}
    batch = QwenReranker(original, spec.min_pixels, spec.max_pixels).run(PAIRS_OF[name], "right")
    pixel_values, grids = batch.pack_images(spec.patch_bytes, LIMITS.max_images)
    with torch.no_grad():
        embeds = modules["vision_encoder"](pixel_values, grids)
        hidden = modules["text_encoder"](batch.inputs["input_ids"], batch.inputs["attention_mask"], embeds, grids)
        scores, _ = modules["scoring_head"](hidden)
    assert float(batch.scores.std()) > 0.05
    return float((scores[:, 0] - batch.scores).abs().max())


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write an adapter and, beside it, its base."""
    return build_monoqwen_adapter(tmp_path_factory.mktemp("adapter") / "tiny")


def test_adapter_scores_as_its_merged_model(tmp_path: Path, adapter: Path) -> None:
    base = adapter.parent / "tiny-base"
    merged = merge_by_hand(adapter, base, tmp_path / "merged")
    checkpoint = load_checkpoint(str(adapter), LIMITS)
    assert largest_difference(checkpoint, merged, "monoqwen") <= SCORE_ATOL
    assert largest_difference(checkpoint, base, "monoqwen") > 10 * SCORE_ATOL
    for pair in checkpoint.make_reference().golden_pairs:
        assert 0 < pair.relevance_score < 1


def test_revision_of_an_adapter_names_its_base_as_well(tmp_path: Path, adapter: Path) -> None:
    spec = load_checkpoint(str(adapter), LIMITS).card.spec
    assert spec.model_id == "tiny"
    own, _, base = spec.revision.partition("+")
    assert len(own) == len(base) == 12
    other = build_monoqwen(tmp_path / "other")
    weights = load_file(other / "model.safetensors")
    weights["model.norm.weight"] += 0.5
    save_file(weights, other / "model.safetensors", {"format": "pt"})
    again = load_checkpoint(str(adapter), LIMITS, Reading(base=str(other))).card.spec.revision
    assert again.split("+")[0] == own
    assert again.split("+")[1] != base


def test_adapter_is_planned_without_reading_weights(adapter: Path) -> None:
    loaded, dry = (load_checkpoint(str(adapter), LIMITS, weights=weights) for weights in (True, False))
    assert [piece.signature for piece in dry.pieces] == [piece.signature for piece in loaded.pieces]


def test_adapter_of_another_model_is_refused(tmp_path: Path, adapter: Path) -> None:
    folder = build_adapter(tmp_path / "odd", adapter.parent / "tiny-base")
    factors = load_file(folder / "adapter_model.safetensors")
    odd = {name.replace("layers.1.", "layers.7."): value for name, value in factors.items()}
    save_file(odd, folder / "adapter_model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"adapter in .*odd does not fit its base model.*--base"):
        load_checkpoint(str(folder), LIMITS)


@pytest.mark.parametrize(
    ("build", "original", "name"),
    [
        (build_qwen3_vl_classifier, build_qwen3_vl, "qwen3_vl"),
        (build_qwen2_5_vl_classifier, build_qwen2_5_vl, "qwen2_5_vl"),
    ],
    ids=["one label", "two labels"],
)
def test_classifier_scores_as_the_reranker_it_was_made_from(
    tmp_path: Path, build: Callable[[Path], Path], original: Callable[[Path], Path], name: str
) -> None:
    folder = build(tmp_path / "classifier")
    checkpoint = load_checkpoint(str(folder), LIMITS)
    reranker = original(tmp_path / "original")
    assert largest_difference(checkpoint, reranker, name) <= SCORE_ATOL
    expected = load_checkpoint(str(reranker), LIMITS).make_reference().golden_pairs
    for pair, other in zip(checkpoint.make_reference().golden_pairs, expected, strict=True):
        assert pair.relevance_score == pytest.approx(other.relevance_score, abs=SCORE_ATOL)


def test_names_of_two_labels_say_which_is_relevant(tmp_path: Path) -> None:
    folder = build_qwen2_5_vl_classifier(tmp_path)
    original = load_checkpoint(str(folder), LIMITS).make_reference().golden_pairs
    path, weights = folder / "model.safetensors", load_file(folder / "model.safetensors")
    save_file(weights | {"score.weight": weights["score.weight"].flip(0).contiguous()}, path, {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    labels = {"id2label": {"0": "Relevant", "1": "no"}, "label2id": {"Relevant": 0, "no": 1}}
    (folder / "config.json").write_text(json.dumps(config | labels))
    swapped = load_checkpoint(str(folder), LIMITS).make_reference().golden_pairs
    assert [pair.relevance_score for pair in swapped] == [pair.relevance_score for pair in original]


def test_classifier_with_a_bias_uses_it(tmp_path: Path) -> None:
    folder = build_qwen3_vl_classifier(tmp_path)
    path, weights = folder / "model.safetensors", load_file(folder / "model.safetensors")
    before = load_checkpoint(str(folder), LIMITS).make_reference().golden_pairs
    save_file(weights | {"score.bias": torch.tensor([30.0])}, path, {"format": "pt"})
    after = load_checkpoint(str(folder), LIMITS).make_reference().golden_pairs
    assert min(pair.relevance_score for pair in after) > 0.99 > min(pair.relevance_score for pair in before)


def test_labels_that_are_no_relevance_are_refused(tmp_path: Path) -> None:
    folder = build_qwen3_vl_classifier(tmp_path)
    path, weights = folder / "model.safetensors", load_file(folder / "model.safetensors")
    save_file(weights | {"score.weight": torch.zeros(3, 64)}, path, {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["id2label"] = {"0": "cat", "1": "dog", "2": "bird"}
    del config["label2id"], config["num_labels"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"score has 3 labels \(cat, dog, bird\); a reranker has"):
        load_checkpoint(str(folder), LIMITS)


def test_number_of_labels_that_differs_from_the_weights_is_named(tmp_path: Path) -> None:
    folder = build_qwen3_vl_classifier(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    for name in ("id2label", "label2id", "num_labels"):
        del config[name]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"score\.weight is \(1, 64\), expected \(2, 64\)"):
        load_checkpoint(str(folder), LIMITS)


@pytest.mark.parametrize("build", [build_monoqwen_adapter, build_qwen3_vl_classifier], ids=["adapter", "classifier"])
def test_variants_export_and_are_verified_through_the_client(tmp_path: Path, build: Callable[[Path], Path]) -> None:
    folder, repository = build(tmp_path / "checkpoint"), tmp_path / "models"
    export_checkpoint(str(folder), repository, limits=LIMITS)
    with in_process_client(repository) as client:
        assert client.check_golden_pairs().max_abs_error <= SCORE_ATOL
        manifest = client.manifest()
        assert reference_scores(str(folder), manifest) == [
            pytest.approx(pair.relevance_score, abs=1e-6) for pair in manifest.golden_pairs.pairs
        ]
        image = to_input(PAIRS_OF["monoqwen"][0][1])
        assert 0 < client.score("a cat", image) < 1

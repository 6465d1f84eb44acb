"""Families of transformers' classes: what loading does alike; of dual encoders and BLIP, what it refuses too."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import BUILDERS
from checkpoints.blip import build_blip
from checkpoints.clip import build_clip
from checkpoints.siglip import build_siglip, build_siglip2, build_siglip2_naflex
from lychee_client.manifest import CropSpec, StretchSpec, TextSpec
from lychee_export.contract.limits import Limits
from lychee_export.errors import CheckpointError
from lychee_export.families import Checkpoint, load_checkpoint
from lychee_export.families.attention import attention_bias
from msgspec import structs
from safetensors.torch import load_file, save_file

NAMES = ["blip", "chinese_clip", "clip", "siglip", "siglip2", "siglip2_naflex"]
TEXT_RERANKERS = [name for name in BUILDERS if name.endswith("_reranker")]
"""Which have nothing but weights, and scores of a wider range."""


def edit_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def text_of(checkpoint: Checkpoint) -> TextSpec:
    return checkpoint.card.spec.text


@pytest.mark.parametrize("name", [*NAMES, *TEXT_RERANKERS])
def test_dry_run_signs_the_same_contract_on_the_meta_device(build: Callable[[str], Path], name: str) -> None:
    dry = load_checkpoint(str(build(name)), weights=False)
    loaded = load_checkpoint(str(build(name)))
    assert [piece.signature for piece in dry.pieces] == [piece.signature for piece in loaded.pieces]
    assert structs.replace(dry.card.spec, revision=loaded.card.spec.revision) == loaded.card.spec
    empty = [piece for piece in dry.pieces if piece.signature.encoder or name in TEXT_RERANKERS]
    assert {tensor.device.type for piece in empty for tensor in piece.module.parameters()} == {"meta"}


@pytest.mark.parametrize("name", [*NAMES, *TEXT_RERANKERS])
def test_halved_encoders_stay_close_and_give_float32(build: Callable[[str], Path], name: str) -> None:
    checkpoint = load_checkpoint(str(build(name)))
    accepted = 2e-2 if name in TEXT_RERANKERS else 1e-2
    for piece in checkpoint.pieces:
        inputs = piece.sample_inputs(np.random.default_rng(0), 3)
        tensors = [torch.from_numpy(inputs[spec.name]) for spec in piece.signature.inputs]
        with torch.no_grad():
            expected, halved = piece.module(*tensors), piece.module.half()(*tensors)
        if piece.signature.encoder:
            assert halved.dtype == torch.float32
            torch.testing.assert_close(halved, expected, atol=accepted, rtol=accepted)
        elif name in TEXT_RERANKERS:
            assert [value.dtype for value in halved] == [torch.float32, torch.float32]


@pytest.mark.parametrize("name", NAMES)
def test_padding_more_does_not_move_an_embedding(build: Callable[[str], Path], name: str) -> None:
    checkpoint = load_checkpoint(str(build(name)))
    piece = next(piece for piece in checkpoint.pieces if piece.signature.name == "text_encoder")
    buckets = text_of(checkpoint).buckets
    if len(buckets) == 1:
        assert buckets == (64,)
        return
    inputs = piece.sample_inputs(np.random.default_rng(0), 3)
    padded = dict(inputs)
    for spec in piece.signature.inputs[:2]:
        width = ((0, 0), (0, buckets[-1] - buckets[0]))
        padded[spec.name] = np.pad(inputs[spec.name], width, constant_values=spec.pad_value)
    with torch.no_grad():
        expected, seen = (
            piece.module(*(torch.from_numpy(tensors[spec.name]) for spec in piece.signature.inputs))
            for tensors in (inputs, padded)
        )
    torch.testing.assert_close(seen, expected, atol=1e-5, rtol=0)


def test_limits_cut_the_longest_text(build: Callable[[str], Path]) -> None:
    assert text_of(load_checkpoint(str(build("clip")))).buckets == (16, 24, 32, 48, 64, 77)
    assert text_of(load_checkpoint(str(build("clip")), Limits(max_tokens=70))).buckets == (16, 24, 32, 48, 64, 70)


def test_tokenizer_bounds_the_longest_text(build: Callable[[str], Path]) -> None:
    assert text_of(load_checkpoint(str(build("chinese_clip")))).max_tokens == 52


def test_image_limit_makes_the_naflex_grid_smaller(tmp_path: Path) -> None:
    edit_json(build_siglip2_naflex(tmp_path) / "preprocessor_config.json", max_num_patches=100)
    sizes = [load_checkpoint(str(tmp_path), Limits(max_img_size=edge)).card.spec.image for edge in (512, 56)]
    assert sizes == [StretchSpec(80, 80, "bilinear"), StretchSpec(56, 56, "bilinear")]


@pytest.mark.parametrize("missing", ["itm_head.weight", "text_encoder.encoder.layer.0.crossattention.self.key.bias"])
def test_blip_without_its_head_names_the_keys(tmp_path: Path, missing: str) -> None:
    path = build_blip(tmp_path) / "model.safetensors"
    weights = load_file(path)
    del weights[missing]
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=rf"lack what BlipForImageTextRetrieval needs: {missing}"):
        load_checkpoint(str(tmp_path))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 48, "crop_size": 48}, "makes images of 48 x 48 pixels.* the model reads 32 x 32"),
        ({"size": 16}, "from a shortest edge of 16, the model reads 32 x 32"),
        ({"do_center_crop": False}, "expected a height and a width without a crop, or a shortest edge with one"),
        ({"do_resize": False}, "do_resize False"),
        ({"resample": 5}, r"resample .*5.*; expected one of 1 \(lanczos\), 2 \(bilinear\), 3 \(bicubic\)"),
    ],
)
def test_image_processor_that_the_client_cannot_follow_is_refused(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    edit_json(build_clip(tmp_path) / "preprocessor_config.json", **changes)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(str(tmp_path))


def test_damaged_image_processor_is_reported(tmp_path: Path) -> None:
    (build_clip(tmp_path) / "preprocessor_config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"preprocessor_config\.json is not JSON"):
        load_checkpoint(str(tmp_path))


def test_image_processor_without_a_file_has_the_defaults_of_its_class(tmp_path: Path) -> None:
    (build_clip(tmp_path, image_size=224) / "preprocessor_config.json").unlink()
    assert load_checkpoint(str(tmp_path)).card.spec.image == CropSpec(224, 224, 224, "bicubic")


def test_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    path = build_clip(tmp_path) / "vocab.json"
    vocabulary = json.loads(path.read_text())
    path.write_text(json.dumps(vocabulary | {f"extra{index}": len(vocabulary) + index for index in range(9)}))
    with pytest.raises(CheckpointError, match=r"tokenizer in .* has 530 tokens, the model has embeddings for 521"):
        load_checkpoint(str(tmp_path))


def test_tokenizer_for_short_texts_only_is_refused(tmp_path: Path) -> None:
    edit_json(build_clip(tmp_path) / "tokenizer_config.json", model_max_length=8)
    with pytest.raises(CheckpointError, match="reads 8 tokens, expected at least 16"):
        load_checkpoint(str(tmp_path))


def test_siglip_without_a_tokenizer_is_reported(tmp_path: Path) -> None:
    (build_siglip(tmp_path) / "spiece.model").unlink()
    with pytest.raises(CheckpointError, match=r"holds neither spiece\.model nor tokenizer\.json"):
        load_checkpoint(str(tmp_path))


def test_siglip_with_a_damaged_tokenizer_is_reported(tmp_path: Path) -> None:
    path = build_siglip(tmp_path) / "spiece.model"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(CheckpointError, match=r"cannot read the tokenizer .*spiece\.model"):
        load_checkpoint(str(tmp_path))


def test_siglip_tokenizer_without_its_end_token_is_refused(tmp_path: Path) -> None:
    edit_json(build_siglip(tmp_path) / "tokenizer_config.json", eos_token="<end>")
    with pytest.raises(CheckpointError, match="has no token '<end>'"):
        load_checkpoint(str(tmp_path))


def test_siglip_without_a_pooling_head_is_refused(tmp_path: Path) -> None:
    config = json.loads((build_siglip2(tmp_path) / "config.json").read_text())
    edit_json(tmp_path / "config.json", vision_config=config["vision_config"] | {"vision_use_head": False})
    with pytest.raises(CheckpointError, match="no pooling head"):
        load_checkpoint(str(tmp_path))


@pytest.mark.parametrize("causal", [False, True])
def test_attention_bias_is_finite_in_float16(causal: bool) -> None:
    bias = attention_bias(torch.tensor([[1, 1, 0], [0, 0, 0]]), torch.float16, causal=causal)
    assert bias.dtype == torch.float16
    assert bool(bias.isfinite().all())
    assert (bias[0, 0] == 0).tolist() == [[True, not causal, False], [True, True, False], [True, True, False]]

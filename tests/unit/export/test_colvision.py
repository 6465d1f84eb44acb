"""ColQwen2, ColQwen2.5 and ColPali: what loading accepts, refuses and says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints.colqwen import build_colqwen2, build_colqwen2_5
from checkpoints.exports import LIMITS
from checkpoints.paligemma import build_colpali, build_colpali_engine
from lychee_client.manifest import PageInteractionSpec, PatchSpec, TileSpec, describe_reading
from lychee_export.contract.limits import Limits
from lychee_export.errors import CheckpointError
from lychee_export.families import load_checkpoint
from msgspec import structs

BUILDERS = [build_colqwen2, build_colqwen2_5, build_colpali, build_colpali_engine]


def edit(path: Path, **changes: Any) -> None:
    """Change a JSON file; "a__b" is a key within a key."""
    content = json.loads(path.read_text())
    for name, value in changes.items():
        *parents, key = name.split("__")
        target = content
        for parent in parents:
            target = target[parent]
        target[key] = value
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("build", BUILDERS)
def test_dry_run_signs_the_same_contract_on_the_meta_device(tmp_path: Path, build: Callable[[Path], Path]) -> None:
    folder = str(build(tmp_path))
    dry, loaded = load_checkpoint(folder, weights=False), load_checkpoint(folder)
    assert [piece.signature for piece in dry.pieces] == [piece.signature for piece in loaded.pieces]
    assert structs.replace(dry.card.spec, revision=loaded.card.spec.revision) == loaded.card.spec
    assert {tensor.device.type for piece in dry.pieces for tensor in piece.module.parameters()} == {"meta"}
    assert dry.card.hidden == {"vision_encoder"}
    assert [ensemble.name for ensemble in dry.card.inner_ensembles] == ["image_encoder"]


@pytest.mark.parametrize("build", [build_colqwen2, build_colpali])
def test_halved_encoders_stay_close(tmp_path: Path, build: Callable[[Path], Path]) -> None:
    for piece in load_checkpoint(str(build(tmp_path)), LIMITS).pieces[:2]:
        inputs = piece.sample_inputs(np.random.default_rng(0), 4)
        tensors = [torch.from_numpy(inputs[spec.name]) for spec in piece.signature.inputs]
        with torch.no_grad():
            expected, halved = piece.module(*tensors), piece.module.half()(*tensors)
        assert expected.dtype == halved.dtype
        torch.testing.assert_close(halved, expected, atol=0.05, rtol=0.05)


def test_published_colqwen2_reads_a_page_as_its_authors_have_it(tmp_path: Path) -> None:
    folder = build_colqwen2(tmp_path)
    text = {"hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12}
    edit(
        folder / "config.json",
        **{f"vlm_config__text_config__{name}": value for name, value in text.items()},
        vlm_config__text_config__layer_types=["full_attention"] * 28,
        vlm_config__text_config__vocab_size=151936,
        vlm_config__text_config__max_position_embeddings=32768,
        vlm_config__text_config__rope_parameters={
            "rope_type": "default",
            "rope_theta": 1e6,
            "mrope_section": [16, 24, 24],
        },
        vlm_config__vision_config__depth=32,
        vlm_config__vision_config__embed_dim=1280,
        vlm_config__vision_config__num_heads=16,
        vlm_config__vision_config__mlp_ratio=4,
        vlm_config__vision_config__hidden_size=1536,
    )
    checkpoint = load_checkpoint(str(folder), weights=False)
    spec = checkpoint.card.spec
    parameters = {id(each): each.numel() for piece in checkpoint.pieces for each in piece.module.parameters()}
    assert round(sum(parameters.values()) / 1e9, 2) == 2.21
    assert isinstance(spec.image, PatchSpec)
    assert isinstance(spec.late_interaction, PageInteractionSpec)
    assert (spec.image.max_pixels, spec.image.max_images, spec.text.max_tokens) == (602112, 1, 1024)
    assert list(describe_reading(spec)) == [
        "images: a page of 1,654 x 2,339 pixels is read as 644 x 896 (736 tokens)",
        "queries: at most 512 tokens",
        "texts: at most 1,024 tokens of a document instead of 32,768; a larger --max-tokens at export keeps more",
    ]


def test_published_colpali_reads_a_page_as_its_authors_have_it(tmp_path: Path) -> None:
    folder = build_colpali(tmp_path)
    text = {"hidden_size": 2048, "intermediate_size": 16384, "num_hidden_layers": 18, "num_attention_heads": 8}
    vision = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16}
    edit(
        folder / "config.json",
        **{f"vlm_config__text_config__{name}": value for name, value in text.items()},
        **{f"vlm_config__vision_config__{name}": value for name, value in vision.items()},
        vlm_config__text_config__head_dim=256,
        vlm_config__text_config__vocab_size=257216,
        vlm_config__text_config__max_position_embeddings=8192,
        vlm_config__vision_config__image_size=448,
        vlm_config__vision_config__projection_dim=2048,
        vlm_config__projection_dim=2048,
    )
    edit(folder / "preprocessor_config.json", size={"height": 448, "width": 448})
    edit(folder / "tokenizer_config.json", model_max_length=10**30)
    checkpoint = load_checkpoint(str(folder), weights=False)
    spec = checkpoint.card.spec
    parameters = {id(each): each.numel() for piece in checkpoint.pieces for each in piece.module.parameters()}
    assert round(sum(parameters.values()) / 1e9, 2) == 2.92
    assert isinstance(spec.image, TileSpec)
    assert (spec.image.tile_size, spec.image.tile_tokens, spec.image.max_tiles) == (448, 1024, 1)
    assert spec.text.max_tokens == 1536
    assert any(1024 < bucket < 1040 for bucket in spec.text.buckets)  # a page has a length of its own
    assert next(iter(describe_reading(spec))) == (
        "images: a page of 1,654 x 2,339 pixels is read as 448 x 448 (1,024 tokens)"
    )


@pytest.mark.parametrize(
    ("build", "file", "changes", "message"),
    [
        (
            build_colqwen2,
            "config.json",
            {"vlm_config__model_type": "qwen3_vl"},
            r"vlm_config has the model_type 'qwen3_vl', expected one of \['qwen2_vl', 'qwen2_5_vl'\]",
        ),
        (
            build_colqwen2,
            "config.json",
            {"vlm_config__image_token_id": 5},
            r"gives <\|image_pad\|> the id \d+, config.json says image_token_id 5",
        ),
        (
            build_colqwen2,
            "config.json",
            {"embedding_dim": 64},
            r"embedding_proj_layer\.bias is \(128,\), expected \(64,\)",
        ),
        (
            build_colpali,
            "config.json",
            {"vlm_config__text_config__model_type": "gemma2"},
            r"text_config has the model_type 'gemma2' .* expected 'gemma' and 'siglip_vision_model': PaliGemma",
        ),
        (
            build_colpali_engine,
            "config.json",
            {"vision_config__model_type": "clip_vision_model"},
            r"vision_config 'clip_vision_model', expected",
        ),
        (
            build_colpali,
            "config.json",
            {"vlm_config__image_token_index": 7},
            r"gives <image> the id \d+, config.json says image_token_index 7",
        ),
        (build_colpali, "preprocessor_config.json", {"resample": 2}, r"resample is 2, expected 3"),
        (
            build_colpali,
            "preprocessor_config.json",
            {"size": {"height": 224, "width": 224}},
            r"size is \{'height': 224, 'width': 224\}, expected \{'height': 56, 'width': 56\}",
        ),
    ],
)
def test_what_is_not_computed_is_refused(
    tmp_path: Path, build: Callable[[Path], Path], file: str, changes: dict[str, Any], message: str
) -> None:
    edit(build(tmp_path) / file, **changes)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(str(tmp_path))


def test_limits_that_admit_no_page_are_refused(tmp_path: Path) -> None:
    build_colpali(tmp_path)
    edit(tmp_path / "config.json", vlm_config__vision_config__image_size=126)
    edit(tmp_path / "preprocessor_config.json", size={"height": 126, "width": 126})
    message = r"a page takes (\d+) tokens and a document may have 64; choose a --max-tokens of \1 or more"
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(str(tmp_path), Limits(max_tokens=64), weights=False)


def test_page_that_does_not_fit_is_said(tmp_path: Path) -> None:
    build_colqwen2(tmp_path)
    limits = Limits(max_tokens=128, max_img_size=420)
    (note,) = load_checkpoint(str(tmp_path), limits).make_reference().notes
    assert "a page takes" in note
    assert "the longest sequence is 128: pages will be refused" in note


@pytest.mark.parametrize("weights", [False, True])
def test_config_that_contradicts_itself_is_refused(tmp_path: Path, weights: bool) -> None:
    edit(build_colqwen2(tmp_path) / "config.json", vlm_config__text_config__num_hidden_layers=3)
    with pytest.raises(CheckpointError, match=r"does not fit ColQwen2ForRetrieval: .* `layer_types` \(2\)"):
        load_checkpoint(str(tmp_path), weights=weights)


def test_prompts_of_the_processor_are_taken(tmp_path: Path) -> None:
    edit(build_colpali(tmp_path) / "processor_config.json", query_prefix="Ask: ", visual_prompt_prefix="Read it.")
    spec = load_checkpoint(str(tmp_path), weights=False).card.spec
    assert isinstance(spec.late_interaction, PageInteractionSpec)
    assert (spec.text.query_prefix, spec.late_interaction.page) == ("<bos>Ask: ", "<image><bos>Read it.\n")

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
from checkpoints.nemotron import build_nemotron_reranker, build_nemotron_vl_reranker
from checkpoints.published import edit_json
from lychee_client.manifest import TileSpec
from lychee_export.contract.limits import Limits
from lychee_export.errors import CheckpointError
from lychee_export.families import load_checkpoint
from lychee_export.families.nemotron.vision import make_pixel_table
from msgspec import structs
from safetensors.torch import load_file, save_file

NAMES = ["nemotron_reranker", "nemotron_vl_reranker"]


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


@pytest.mark.parametrize("name", NAMES)
def test_code_of_the_checkpoint_is_never_run(build: Callable[[str], Path], name: str) -> None:
    files = list(build(name).glob("*.py"))
    assert files
    assert all("raise RuntimeError" in file.read_text() for file in files)
    assert load_checkpoint(str(build(name))).card.spec.family == "nemotron"


def test_prompt_is_that_of_the_model_card(build: Callable[[str], Path]) -> None:
    prompt = load_checkpoint(str(build("nemotron_reranker")), weights=False).card.spec.prompt
    assert prompt is not None
    assert prompt.template == "question:{query} \n \n passage:{document}"
    assert (prompt.queries, prompt.documents) == (("text",), ("text",))


def test_images_stand_before_the_prompt_of_texts(build: Callable[[str], Path]) -> None:
    spec = load_checkpoint(str(build("nemotron_vl_reranker")), weights=False).card.spec
    assert spec.prompt is not None
    assert spec.prompt.template == "{images}question:{query} \n \n passage:{document}"
    assert spec.prompt.image == "<img><IMG_CONTEXT></img> "
    assert (spec.prompt.queries, spec.prompt.documents) == (("text",), ("text", "image", "image_text"))


@pytest.mark.parametrize(
    ("limits", "tiles"),
    [
        (None, 6),
        (Limits(max_img_size=79), 6),  # 6,241 pixels; six tiles have 6,144
        (Limits(max_img_size=78), 5),
        (Limits(max_img_size=56), 3),
        (Limits(max_tokens=91), 5),  # beside 7 tiles of 4 tokens, 64 are left for texts
        (Limits(max_tokens=69), 1),
    ],
)
def test_limits_of_pixels_and_tokens_leave_fewer_tiles(
    build: Callable[[str], Path], limits: Limits | None, tiles: int
) -> None:
    spec = load_checkpoint(str(build("nemotron_vl_reranker")), limits, weights=False).card.spec
    assert spec.image == TileSpec(32, tiles, 4, "bicubic", 32)
    assert spec.checkpoint_limits is not None
    assert spec.checkpoint_limits.max_pixels == 6 * 32**2


def test_shapes_of_the_published_checkpoint_make_its_contract(tmp_path: Path) -> None:
    path = build_nemotron_vl_reranker(tmp_path) / "config.json"
    vision = {"hidden_size": 1152, "image_size": 512, "intermediate_size": 4304, "num_attention_heads": 16}
    vision |= {"model_type": "siglip_vision_model", "num_hidden_layers": 27, "patch_size": 16}
    language = json.loads(path.read_text())["llm_config"]
    language |= {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32}
    language |= {"num_key_value_heads": 8, "head_dim": 64, "max_position_embeddings": 131072}
    edit_json(path, vision_config=vision, llm_config=language, force_image_size=512)
    edit_json(tmp_path / "processor_config.json", force_image_size=512, num_image_token=256)
    loaded = load_checkpoint(str(tmp_path), weights=False)
    assert loaded.card.spec.image == TileSpec(512, 6, 256, "bicubic", 2048)
    assert (loaded.card.spec.text.max_tokens, loaded.card.spec.max_img_size) == (10240, 1255)
    axes = {
        axis.name: axis.buckets
        for piece in loaded.pieces
        for spec in piece.signature.inputs
        for axis in spec.shape[:1]
        if not isinstance(axis, int)
    }
    assert axes["num_tiles"] == (1, 3, 4, 5, 6, 7)
    assert axes["num_image_tokens"] == (1, 256, 768, 1024, 1280, 1536, 1792)


def test_bytes_are_rounded_to_bfloat16_as_the_checkpoints_processor_does() -> None:
    pixels = torch.arange(256, dtype=torch.uint8)
    expected = ((pixels / 255 - 0.5) / 0.5).to(torch.bfloat16)
    assert torch.equal(make_pixel_table(), expected.float())
    assert not torch.equal(make_pixel_table(), (pixels / 255 - 0.5) / 0.5)


def test_pairs_are_as_long_as_the_model_was_trained_for(tmp_path: Path) -> None:
    edit_json(build_nemotron_reranker(tmp_path) / "config.json", max_position_embeddings=131072)
    limits = None, Limits(max_tokens=512)
    specs = [load_checkpoint(str(tmp_path), limit, weights=False).card.spec for limit in limits]
    assert [spec.text.max_tokens for spec in specs] == [8192, 512]
    assert [spec.checkpoint_limits and spec.checkpoint_limits.max_tokens for spec in specs] == [8192, 8192]


def test_tokenizer_without_padding_takes_the_last_token(tmp_path: Path) -> None:
    edit_json(build_nemotron_reranker(tmp_path) / "tokenizer_config.json", pad_token=None)
    spec = load_checkpoint(str(tmp_path), weights=False).card.spec
    assert spec.text.pad_token_id == json.loads((tmp_path / "config.json").read_text())["eos_token_id"]


def test_checkpoint_without_pooling_and_temperature_has_the_defaults_of_its_class(tmp_path: Path) -> None:
    edit_json(build_nemotron_reranker(tmp_path) / "config.json", pooling=None, temperature=None)
    head = load_checkpoint(str(tmp_path), weights=False).pieces[-1].module
    assert head.temperature == 1.0


@pytest.mark.parametrize("value", ["llama_bidirectional_model", "nvidia/llama-nemotron-rerank-1b-v2--modeling"])
def test_classes_of_nvidia_are_known_by_name_wherever_their_file_lies(tmp_path: Path, value: str) -> None:
    code = {"AutoModelForSequenceClassification": [f"{value}.LlamaBidirectionalForSequenceClassification", None]}
    edit_json(build_nemotron_reranker(tmp_path) / "config.json", auto_map=code)
    assert load_checkpoint(str(tmp_path), weights=False).card.spec.family == "nemotron"


def config(**changes: Any) -> Callable[[Path], None]:
    """Return what builds a text reranker and changes its config.json."""

    def build(folder: Path) -> None:
        edit_json(build_nemotron_reranker(folder) / "config.json", **changes)

    return build


def vl(file: str = "config.json", **changes: Any) -> Callable[[Path], None]:
    """Return what builds a reranker of images and changes one of its files."""

    def build(folder: Path) -> None:
        edit_json(build_nemotron_vl_reranker(folder) / file, **changes)

    return build


def part(name: str, **changes: Any) -> Callable[[Path], None]:
    """Return what builds a reranker of images and changes a part of its config.json."""

    def build(folder: Path) -> None:
        path = build_nemotron_vl_reranker(folder) / "config.json"
        edit_json(path, **{name: json.loads(path.read_text())[name] | changes})

    return build


def without_its_projector(folder: Path) -> None:
    path = build_nemotron_vl_reranker(folder) / "model.safetensors"
    weights = load_file(path)
    del weights["model.mlp1.3.weight"]
    save_file(weights, path, metadata={"format": "pt"})


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
    edit_json(folder / "config.json", vocab_size=len(weights["model.embed_tokens.weight"]), pad_token_id=0)


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
    "a vision tower of RADIO": (
        part("vision_config", model_type="radio"),
        r"vision_config has the model_type 'radio' .* expected 'siglip_vision_model'",
    ),
    "a causal language model": (
        part("llm_config", architectures=["LlamaForCausalLM"]),
        r"llm_config the architecture 'LlamaForCausalLM'; expected .* one of \['LlamaBidirectionalModel', ",
    ),
    "growing frequencies of a part": (
        part("llm_config", rope_scaling=DYNAMIC),
        r"rotary positions of the type 'dynamic'",
    ),
    "an embedding model of images": (
        vl(architectures=["LlamaNemotronVLModel"]),
        r"architectures is \['LlamaNemotronVLModel'\], expected \['LlamaNemotronVLForSequenceClassification'\]",
    ),
    "unknown code for images": (
        vl(auto_map={"AutoProcessor": "processing_better.BetterProcessor"}),
        r"auto_map asks for the Python classes \['BetterProcessor'\]",
    ),
    "two labels for images": (vl(id2label={"0": "no", "1": "yes"}), r"the head has 2 labels .*'yes'.*, expected 1"),
    "the default pooling": (vl(pooling=None), r"pooling is None, expected 'avg'"),
    "an earlier layer": (vl(select_layer=-2), r"select_layer is -2, expected -1"),
    "another shuffle": (vl(downsample_ratio=0.25), r"downsample_ratio is 0\.25, expected 0\.5"),
    "another prompt": (vl(prompt_template=None), r"config\.json: prompt_template is None, expected 'v1'"),
    "another prompt of the processor": (
        vl("processor_config.json", prompt_template="v2"),
        r"processor_config\.json: prompt_template is 'v2', expected 'v1'",
    ),
    "no tiles": (vl(dynamic_image_size=False), r"dynamic_image_size is False, expected True"),
    "another size": (
        vl(force_image_size=64),
        r"vision_config\.image_size is 32, force_image_size is 64.*expected one size",
    ),
    "odd patches": (
        part("vision_config", patch_size=32),
        r"patches have 32 pixels; expected one size, of whole blocks",
    ),
    "another image token": (vl(img_context_token_id=3), r"gives <IMG_CONTEXT> the id \d+, config.json says .* 3; take"),
    "another number of tokens": (
        vl("processor_config.json", num_image_token=256),
        r"num_image_token is 256, expected 4 for tiles of 32 pixels and patches of 8",
    ),
    "no projector": (
        without_its_projector,
        r"lack what LlamaNemotronVLForSequenceClassification needs: model\.mlp1\.3\.weight",
    ),
    "another tokenizer": (with_more_tokens_than_embeddings, r"has \d+ tokens, the model has embeddings for \d+"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_scored_is_refused_with_what_was_seen(tmp_path: Path, name: str) -> None:
    make, message = BAD[name]
    make(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(str(tmp_path))


def test_limit_of_tokens_that_leaves_no_room_for_an_image_is_refused(tmp_path: Path) -> None:
    build_nemotron_vl_reranker(tmp_path)
    with pytest.raises(CheckpointError, match=r"takes 4 tokens at least and a pair may have 64; .* of 68 or more"):
        load_checkpoint(str(tmp_path), Limits(max_tokens=64), weights=False)

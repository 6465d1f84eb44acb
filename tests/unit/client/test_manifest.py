"""The manifest: what is read, what is refused."""

import copy
import json
from typing import Any

import pytest
from fakes.cross_encoder import PATCHES_MANIFEST, STRETCH_MANIFEST, TEXT_MANIFEST
from fakes.dual_encoder import MANIFEST
from fakes.late_interaction import LATE_MANIFEST, PAGES_MANIFEST
from lychee_client import ContractError
from lychee_client.manifest.image_spec import CropSpec, PatchSpec, StretchSpec
from lychee_client.manifest.manifest import (
    CheckpointLimits,
    InstructionSpec,
    ModelIdentity,
    TextSpec,
    parse_manifest,
    write_manifest,
)
from lychee_client.manifest.prompt_spec import PromptSpec
from msgspec import structs

PAIR = {"query": {"text": "q"}, "document": {"text": "d"}, "relevance_score": 1}


def manifest(base: dict[str, Any] = MANIFEST, **changes: Any) -> str:
    data: dict[str, Any] = copy.deepcopy({**MANIFEST, **base, "artifacts": {"tokenizer": "ab" * 32}})
    if data["pipeline"] == "cross_encoder":
        del data["embedding_dim"]
    for path, value in changes.items():
        *parents, key = path.split("__")
        target = data
        for parent in parents:
            target = target[parent]
        if value is KeyError:
            del target[key]
        else:
            target[key] = value
    return json.dumps(data)


def test_every_field_is_read() -> None:
    parsed = parse_manifest(manifest(golden_pairs__pairs=[PAIR], unknown_key=1))
    assert parsed.text == TextSpec(
        query_prefix="query: ", document_prefix="passage: ", pad_token_id=1, max_tokens=64, buckets=(16, 32, 64)
    )
    assert parsed.image == CropSpec(224, 224, 256, "bicubic")
    assert parsed.max_batch_size["rerank_text"] == 4
    assert parsed.artifacts == {"tokenizer": "ab" * 32}
    assert parsed.instruction is None
    assert parsed.identity == ModelIdentity("fake", "000000000000", "fp32", {"tokenizer": "ab" * 32})
    assert (parsed.golden_pairs.tolerance, parsed.golden_pairs.pairs[0].relevance_score) == (0.02, 1.0)
    assert (parsed.family, parsed.model_id, parsed.embedding_dim) == ("fake", "fake", 24)


def test_every_field_of_a_cross_encoder_is_read() -> None:
    parsed = parse_manifest(manifest(PATCHES_MANIFEST))
    everything = ("text", "image", "image_text")
    assert (parsed.pipeline, parsed.embedding_dim, parsed.max_img_size) == ("cross_encoder", None, 112)
    assert parsed.text == TextSpec(pad_token_id=0, max_tokens=256, buckets=(64, 128, 256))
    assert parsed.instruction == InstructionSpec("Find it.")
    assert parsed.prompt == PromptSpec(
        template="<|im_start|>I:{instruction} Q:{query} D:{document}<|im_end|>",
        image="<|vision_start|><|image_pad|><|vision_end|>",
        image_token="<|image_pad|>",
        missing_text="",
        suffix_token_ids=(),
        queries=everything,
        documents=everything,
    )
    assert parsed.image == PatchSpec(14, 2, 3136, 12544, "bicubic", (32, 64, 128), 2, 6)
    assert (parsed.image.block_size, parsed.image.patch_bytes) == (28, 588)


def test_cross_encoder_with_images_of_a_fixed_size_is_read() -> None:
    parsed = parse_manifest(manifest(STRETCH_MANIFEST, prompt__suffix_token_ids=[100, 7]))
    assert parsed.image == StretchSpec(20, 30, "bicubic")
    assert (parsed.max_img_size, parsed.instruction) == (None, None)
    assert parsed.prompt is not None
    assert parsed.prompt.suffix_token_ids == (100, 7)
    assert (parsed.prompt.queries, parsed.prompt.documents) == (("text",), ("image",))


def test_cross_encoder_of_texts_alone_is_read_and_has_no_image() -> None:
    parsed = parse_manifest(manifest(TEXT_MANIFEST))
    assert (parsed.image, parsed.max_img_size, parsed.checkpoint_limits) == (None, None, CheckpointLimits(512))
    written = json.loads(write_manifest(parsed))
    assert "image" not in written
    assert parse_manifest(json.dumps(written)) == parsed


@pytest.mark.parametrize("side", ["queries", "documents"])
def test_reading_images_without_saying_how_is_refused(side: str) -> None:
    with pytest.raises(ContractError, match=rf"the key image is missing; .*prompt\.{side} is \['text', 'image'\]"):
        parse_manifest(manifest(TEXT_MANIFEST, **{f"prompt__{side}": ["text", "image"]}))
    with pytest.raises(ContractError, match="the key image is missing; expected it with the pipeline dual_encoder"):
        parse_manifest(manifest(image=None))


@pytest.mark.parametrize(
    ("template", "first"), [("{query}{document}", True), ("{document} {query}", False), ("{query}", True)]
)
def test_template_says_which_comes_first(template: str, first: bool) -> None:
    prompt = parse_manifest(manifest(STRETCH_MANIFEST, prompt__template=template)).prompt
    assert prompt is not None
    assert prompt.is_query_first is first


@pytest.mark.parametrize("resample", ["bicubic", "bilinear", "lanczos"])
def test_every_resampling_is_read(resample: str) -> None:
    assert parse_manifest(manifest(image__resample=resample)).image.resample == resample


def test_instruction_is_read() -> None:
    spec = {"default": "Find it.", "query_prefix": "Instruct: {instruction}\nQuery: "}
    assert parse_manifest(manifest(instruction=spec)).instruction == InstructionSpec(**spec)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"text"'])
def test_not_an_object_is_refused(text: str) -> None:
    with pytest.raises(ContractError, match="manifest is"):
        parse_manifest(text)


@pytest.mark.parametrize(("key", "value"), [("format_version", 1), ("format_version", 3), ("pipeline", "late")])
def test_newer_manifest_asks_for_a_newer_client(key: str, value: object) -> None:
    with pytest.raises(ContractError, match="upgrade lychee-rerank-client"):
        parse_manifest(manifest(**{key: value}))


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("format_version", KeyError, "format_version"),
        ("format_version", True, "format_version"),
        ("model_id", KeyError, "model_id"),
        ("model_id", 3, "model_id"),
        ("embedding_dim", 0, "embedding_dim"),
        ("text", [], "text"),
        ("text__buckets", [], "text.buckets"),
        ("text__buckets", [32, 16, 64], "text.buckets"),
        ("text__buckets", [16, 16, 64], "text.buckets"),
        ("text__buckets", [16, 32], "text.buckets"),
        ("text__buckets", [0, 64], "text.buckets"),
        ("text__buckets", ["16", "64"], "text.buckets"),
        ("text__max_tokens", KeyError, "text.max_tokens"),
        ("text__pad_token_id", "1", "text.pad_token_id"),
        ("image__height", 300, "resize_shortest_edge"),
        ("image__resample", "nearest", "upgrade lychee-rerank-client"),
        ("image__kind", KeyError, "image.kind"),
        ("image__kind", "tiles", "upgrade lychee-rerank-client"),
        ("image__kind", "patches", "image.patch_size"),
        ("max_batch_size__rerank_text", 0, "max_batch_size[...] is {'text_encoder': 4"),
        ("artifacts__tokenizer", KeyError, "artifacts.tokenizer"),
        ("artifacts__text_encoder", 3, "'text_encoder': 3}; expected `str`"),
        ("instruction", {"default": "d"}, "instruction.query_prefix"),
        ("instruction", {"default": "d", "query_prefix": "no place"}, "{instruction}"),
        ("instruction", {"query_prefix": "{instruction}"}, "instruction.default"),
        ("golden_pairs__tolerance", None, "golden_pairs.tolerance"),
        ("golden_pairs__pairs", {}, "golden_pairs.pairs"),
        ("golden_pairs__pairs", [1], "golden_pairs.pairs[0] is 1; expected `object`"),
        ("golden_pairs__pairs", [{**PAIR, "relevance_score": "1"}], "relevance_score"),
    ],
)
def test_message_names_the_key(path: str, value: object, named: str) -> None:
    with pytest.raises(ContractError) as caught:
        parse_manifest(manifest(**{path: value}))
    assert named in str(caught.value)


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("prompt", KeyError, "the key prompt is missing"),
        ("prompt__template", "Q: {document}", "{query} once"),
        ("prompt__template", "{query}{query}", "{query} once"),
        ("prompt__template", "{query}{document}{document}", "{document} at most once"),
        ("prompt__template", "{query}{instruction}{instruction}", "{instruction} at most once"),
        (
            "prompt__template",
            "{instruction}{images}{query}{document}",
            "expected {images} at its beginning or nowhere",
        ),
        ("prompt__template", "{images}{instruction}{query}", "begins with {images} and prompt.queries is"),
        ("prompt__template", "{query}{document}", "an instruction, its prompt.template has no place"),
        ("instruction", None, "no instruction, its prompt.template has a place"),
        ("instruction", {}, "instruction.default"),
        ("prompt__image", "<image>", "prompt.image"),
        ("prompt__image", "<|image_pad|><|image_pad|>", "once"),
        ("prompt__image_token", "", "both empty"),
        ("prompt__missing_text", KeyError, "prompt.missing_text"),
        ("prompt__suffix_token_ids", ["x"], "prompt.suffix_token_ids"),
        ("prompt__suffix_token_ids", [True], "prompt.suffix_token_ids"),
        ("prompt__suffix_token_ids", [-1], "prompt.suffix_token_ids"),
        ("prompt__queries", [], "prompt.queries"),
        ("prompt__documents", ["video"], "prompt.documents"),
        ("prompt__documents", [["text"]], "prompt.documents"),
        ("max_img_size", KeyError, "max_img_size"),
        ("image__max_pixels", 3135, "image.max_pixels"),
        ("image__buckets", [30, 64], "multiples of 4"),
        ("image__buckets", [64, 32], "ascending"),
        ("image__buckets", [32], "end at 32 patches"),
        ("image__max_images", 0, "image.max_images"),
        ("image", {**STRETCH_MANIFEST["image"]}, "expected no prompt.image"),
        ("text__buckets", [64, 128], "text.buckets"),
    ],
)
def test_message_names_the_key_of_a_cross_encoder(path: str, value: object, named: str) -> None:
    with pytest.raises(ContractError) as caught:
        parse_manifest(manifest(PATCHES_MANIFEST, **{path: value}))
    assert named in str(caught.value)


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("late_interaction", None, "key late_interaction is missing"),
        ("late_interaction__query_marker", KeyError, "query_marker"),
        ("late_interaction__query_tokens", 33, "query_tokens is 33; expected at most text.max_tokens (32)"),
        ("late_interaction__max_documents", 0, "max_documents"),
        ("image", MANIFEST["image"], "there is an image and late_interaction is a LateInteractionSpec"),
        ("late_interaction__kind", "other", "kind"),
        ("pipeline", "dual_encoder", "there is late_interaction; expected none with the pipeline dual_encoder"),
        ("embedding_dim", None, "key embedding_dim is missing"),
        ("prompt", PATCHES_MANIFEST["prompt"], "expected none with the pipeline late_interaction"),
    ],
)
def test_message_names_the_key_of_late_interaction(path: str, value: object, named: str) -> None:
    with pytest.raises(ContractError) as caught:
        parse_manifest(manifest(LATE_MANIFEST, **{path: value}))
    assert named in str(caught.value)


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("image", None, "there is no image and late_interaction is a PageInteractionSpec"),
        ("image", MANIFEST["image"], "the images are a CropSpec"),
        ("max_img_size", None, "key max_img_size is missing"),
        ("late_interaction__page", "no place", "late_interaction.page is 'no place'; expected"),
        ("late_interaction__page", "# and #", "expected late_interaction.image_token ('#') in it, once"),
        ("late_interaction__image_token", "", "expected late_interaction.image_token ('') in it, once"),
        ("late_interaction__query_suffix", KeyError, "query_suffix"),
        ("late_interaction__query_tokens", 33, "query_tokens is 33; expected at most text.max_tokens (32)"),
    ],
)
def test_message_names_the_key_of_pages(path: str, value: object, named: str) -> None:
    with pytest.raises(ContractError) as caught:
        parse_manifest(manifest(PAGES_MANIFEST, **{path: value}))
    assert named in str(caught.value)


def test_dual_encoder_has_no_place_for_patches() -> None:
    with pytest.raises(ContractError, match=r"expected prompt\.image"):
        parse_manifest(manifest(image=PATCHES_MANIFEST["image"]))


@pytest.mark.parametrize(
    "base",
    [MANIFEST, PATCHES_MANIFEST, STRETCH_MANIFEST, PAGES_MANIFEST],
    ids=["crop", "patches", "stretch", "pages"],
)
def test_what_is_written_is_what_was_read(base: dict[str, Any]) -> None:
    image = {"image_png_base64": "iVBORw0KGgo="}
    pairs = [PAIR, {"query": image, "document": {"text": "词", **image}, "relevance_score": 0.25}]
    text = manifest(base, golden_pairs__pairs=pairs, flash_attn=False, created_by={"torch": "2.13.0"})
    written = write_manifest(parse_manifest(text))
    assert json.loads(written) == json.loads(text)
    assert "词" in written


def test_manifest_that_no_client_could_read_is_not_written() -> None:
    wrong = structs.replace(parse_manifest(manifest()), embedding_dim=0)
    with pytest.raises(ContractError, match="embedding_dim is 0; expected `int` >= 1"):
        write_manifest(wrong)

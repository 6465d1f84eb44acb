"""The client's prompts against the processors of the Qwen-VL models: the same ids, the same patches."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from checkpoints.qwen_vl import build_tokenizer
from lychee_client import Image, InvalidInputError
from lychee_client._pipelines.image_tensors import pack_images
from lychee_client.manifest import PatchSpec
from lychee_client.manifest.manifest import TextSpec
from lychee_client.manifest.prompt_spec import MODALITIES, PromptSpec
from lychee_client.preprocessing.prompt import Part, PromptProcessor
from transformers import (
    Qwen2_5_VLProcessor,
    Qwen2Tokenizer,
    Qwen2VLProcessor,
    Qwen3VLProcessor,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

PROCESSORS = {"qwen2": Qwen2VLProcessor, "qwen3": Qwen3VLProcessor}
VISION = "<|vision_start|><|image_pad|><|vision_end|>"
QUERY_FIRST = (
    '<|im_start|>system\nJudge the Document. Note that the answer can only be "yes" or "no".<|im_end|>\n'
    "<|im_start|>user\n<Instruct>: {instruction}<Query>:{query}\n<Document>:{document}<|im_end|>\n"
    "<|im_start|>assistant\n"
)
DOCUMENT_FIRST = "**Document**:\n{document}\n**Query**:\n{query}"
INSTRUCTION = "Given a search query, retrieve relevant candidates that answer the query."
TEXTS = [
    "a",
    "猫",
    "a photo of a cat on a sofa",
    "一只猫躺在沙发上。怎样泡一杯好咖啡？",
    "It's 3 o'clock,  isn't it?\n\n(é) 😀 ",
]
# Query's text and image, document's text and image; images by their size.
PAIRS = [
    *[(query, None, document, None) for query in TEXTS for document in TEXTS[:3]],
    *[("a cat", None, text, (70, 42)) for text in TEXTS],
    *[(text, (90, 60), "一只猫", (61, 200)) for text in TEXTS],
    (None, (64, 64), None, (300, 40)),
    (None, (64, 64), "猫", None),
    ("red cup", (29, 31), None, (128, 128)),
]


@dataclass(frozen=True)
class Model:
    """A processor of transformers and what the client has in its place."""

    processor: Qwen2VLProcessor
    prompts: PromptProcessor
    template: str
    image: PatchSpec


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Qwen2Tokenizer:
    folder: Path = tmp_path_factory.mktemp("tokenizer")
    return build_tokenizer(folder)


@pytest.fixture(scope="module", params=["qwen2", "qwen2.5", "qwen3", "document first"])
def model(request: pytest.FixtureRequest, tokenizer: Qwen2Tokenizer) -> Model:
    return make_model(request.param, tokenizer)


def make_model(name: str, tokenizer: Qwen2Tokenizer, max_tokens: int = 2048) -> Model:
    patch_size = 16 if name == "qwen3" else 14
    least, most = (2 * patch_size) ** 2, (8 * patch_size) ** 2
    spec = PatchSpec(patch_size, 2, least, most, "bicubic", (64, 128), 2, 8)
    images = Qwen2VLImageProcessorPil(
        size={"shortest_edge": least, "longest_edge": most},
        patch_size=patch_size,
        do_rescale=False,
        do_normalize=False,
    )
    processor = PROCESSORS.get(name, Qwen2_5_VLProcessor)
    # A processor for videos would need torchvision; nothing here has a video.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processor, "check_argument_for_proper_class", lambda *_: None)
        processor = processor(images, tokenizer, video_processor=None)
    template = DOCUMENT_FIRST if name == "document first" else QUERY_FIRST
    prompt = PromptSpec(template, VISION, "<|image_pad|>", "", (), MODALITIES, MODALITIES)
    text = TextSpec(pad_token_id=tokenizer.pad_token_id, max_tokens=max_tokens, buckets=(max_tokens,))
    return Model(processor, PromptProcessor(tokenizer.backend_tokenizer.to_str(), text, prompt), template, spec)


def make_image(size: tuple[int, int] | None) -> PIL.Image.Image | None:
    if size is None:
        return None
    return PIL.Image.fromarray(np.random.default_rng(sum(size)).integers(0, 256, (*size[::-1], 3), np.uint8))


def reference(
    model: Model,
    query: tuple[str | None, PIL.Image.Image | None],
    document: tuple[str | None, PIL.Image.Image | None],
) -> dict[str, np.ndarray]:
    """Fill the template as the models' own code does, and let the processor repeat the image token."""
    filled = {
        name: (VISION if image is not None else "") + (text or "")
        for name, (text, image) in (("query", query), ("document", document))
    }
    prompt = model.template.format(instruction=INSTRUCTION, **filled)
    images = [image for _, image in (query, document) if image is not None]
    if model.template == DOCUMENT_FIRST:
        images.reverse()
    outputs = model.processor(text=[prompt], images=images or None, return_tensors="np")
    return {name: np.asarray(value) for name, value in outputs.items()}


@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_prompt_and_patches_are_those_of_the_processor(
    model: Model, pair: tuple[str | None, tuple[int, int] | None, str | None, tuple[int, int] | None]
) -> None:
    query, document = (pair[0], make_image(pair[1])), (pair[2], make_image(pair[3]))
    expected = reference(model, query, document)
    prepared = [None if image is None else Image.from_pil(image).prepare(model.image) for _, image in (query, document)]
    parts = [
        Part(text, [] if image is None else [image.tokens])
        for (text, _), image in zip((query, document), prepared, strict=True)
    ]
    (tokens,) = model.prompts.tokenize(model.prompts.make_frame(parts[0], INSTRUCTION), parts[1:])
    assert not isinstance(tokens, InvalidInputError)
    assert list(tokens.ids) == expected["input_ids"][0].tolist()
    assert not tokens.truncated
    if model.template == DOCUMENT_FIRST:
        prepared.reverse()
    images = [image for image in prepared if image is not None]
    if images:
        tensors = pack_images(images, model.image)
        grid = expected["image_grid_thw"]
        patches = int(grid.prod(axis=1).sum())
        frames = expected["pixel_values"].reshape(patches, 3, 2, -1)[:, :, 0].reshape(patches, -1)
        np.testing.assert_array_equal(tensors["image_grid_thw"][0, : len(images)], grid)
        np.testing.assert_array_equal(tensors["pixel_values"][0, :patches], frames)
        assert not tensors["pixel_values"][0, patches:].any()
        assert not tensors["image_grid_thw"][0, len(images) :].any()


@pytest.mark.parametrize("name", ["qwen2.5", "document first"])
@pytest.mark.parametrize(
    "text", ["a photo of a cat on a sofa. " * 60, "一只猫躺在沙发上。" * 300, "x" * 900, "😀é" * 200]
)
def test_truncated_prompt_is_that_of_the_processor_for_the_text_that_is_left(
    tokenizer: Qwen2Tokenizer, name: str, text: str
) -> None:
    """The end of the document's text is gone, and no more of it than need be."""
    limit = 200
    short, long = make_model(name, tokenizer, limit), make_model(name, tokenizer)
    image = Image.from_pil(make_image((70, 42))).prepare(short.image)
    frame = short.prompts.make_frame(Part("a cat"), INSTRUCTION)
    (cut,) = short.prompts.tokenize(frame, [Part(text, [image.tokens])])
    assert not isinstance(cut, InvalidInputError)
    assert cut.truncated
    assert limit - 4 <= len(cut.ids) <= limit
    decoded = tokenizer.decode(cut.ids)
    begin, end = short.template.format(instruction=INSTRUCTION, query="a cat", document="\0").split("\0")
    begin += VISION.replace("<|image_pad|>", "<|image_pad|>" * image.tokens)
    kept = decoded.removeprefix(begin).removesuffix(end)
    assert len(kept) == len(decoded) - len(begin) - len(end)
    assert text.startswith(kept)
    expected = reference(long, ("a cat", None), (kept, make_image((70, 42))))
    assert list(cut.ids) == expected["input_ids"][0].tolist()

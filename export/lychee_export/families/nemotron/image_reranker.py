"""llama-nemotron-rerank-vl-1b-v2: the tiles of a document's image, then query and document as one text."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from lychee_client.manifest import CheckpointLimits, ModelSpec, PromptSpec, TextSpec, TileSpec, count_read_tiles

from lychee_export.checkpoint.source import CheckpointSource
from lychee_export.contract.limits import Limits
from lychee_export.errors import CheckpointError
from lychee_export.families.family import Checkpoint, ModelCard, Piece
from lychee_export.families.nemotron.checks import (
    check_classes,
    check_labels,
    check_language_model,
    read_temperature,
)
from lychee_export.families.nemotron.image_model import LlamaNemotronVLForSequenceClassification
from lychee_export.families.nemotron.image_reference import ImageReference, make_image_reference
from lychee_export.families.nemotron.llama import ImageTextEncoder, ScoringHead
from lychee_export.families.nemotron.prompt import IMAGE, IMAGE_TOKEN, TEMPLATE
from lychee_export.families.nemotron.vision import MERGE_SIZE, Projector, make_pixel_table
from lychee_export.families.pair_contract import PairContract
from lychee_export.families.text_format import TextFormat, plain_tokenizer, text_buckets
from lychee_export.families.tiles import TileInputs, TileVisionEncoder

__all__ = ["MODEL_TYPE", "load"]

MODEL_TYPE = "llama_nemotron_vl_rerank"
_ARCHITECTURE = LlamaNemotronVLForSequenceClassification.__name__
_LANGUAGE_MODELS = ("LlamaBidirectionalModel", "LlamaBidirectionalForSequenceClassification")
_CODE = (
    _ARCHITECTURE,
    "LlamaNemotronVLForSequenceClassificationConfig",
    "LlamaNemotronVLModel",
    "LlamaNemotronVLRerankProcessor",
)
_TRAINED_TOKENS = 10240
"""``p_max_length`` in config.json, and the limit of NVIDIA's own retriever; config.json has 131,072 positions."""
_MAX_TILES = 6
"""What the model card and NVIDIA's own retriever ask of the processor, whatever its file says."""
_SHORT_TEXT = 64
"""So many tokens are left for a query and a text beside the largest image."""
_EXPECTED: Mapping[str, tuple[Any, ...]] = {
    "select_layer": (None, -1),
    "downsample_ratio": (None, 1 / MERGE_SIZE),
    "prompt_template": ("v1",),
    "dynamic_image_size": (True,),
    "bidirectional_attention": (None, True),
}
"""Values of config.json that are computed here, None for none; others are refused."""
_EXPECTED_OF_PROCESSOR: Mapping[str, tuple[Any, ...]] = {
    "prompt_template": (None, "v1"),
    "dynamic_image_size": (None, True),
}
"""The same of processor_config.json, which is what the checkpoint's code goes by."""


def load(source: CheckpointSource, limits: Limits) -> Checkpoint:
    """See ``nemotron.load``."""
    config = source.config
    check_classes(source, _ARCHITECTURE, _CODE)
    check_labels(source)
    _check_parts(source)
    check_language_model(source, config["llm_config"], config.get("pooling"))
    temperature = read_temperature(source)
    model: Any = source.load_model(LlamaNemotronVLForSequenceClassification)
    language, vision = model.config.llm_config, model.config.vision_config
    language.is_causal = False  # for the reference: transformers then makes masks for both directions
    tokenizer = source.load_tokenizer(language)
    tokenizer_json = plain_tokenizer(source, tokenizer, language.vocab_size).to_str()
    image_token_id = _find_image_token(source, tokenizer)
    own_tokens = min(language.max_position_embeddings, tokenizer.model_max_length, _TRAINED_TOKENS)
    text = TextFormat(
        vocab_size=language.vocab_size,
        pad_token_id=tokenizer.pad_token_id,
        buckets=text_buckets(source, limits, own_tokens),
    )
    image = _choose_tiles(source, vision, language.hidden_size, limits, text.max_tokens)
    inputs = TileInputs(text, image, limits, image_token_id)
    contract = PairContract(inputs, language.hidden_size)
    pieces = (
        Piece(
            inputs.vision_encoder,
            TileVisionEncoder(model.model.vision_model, Projector(model.model.mlp1), make_pixel_table()).eval(),
            inputs.sample_images,
        ),
        Piece(
            contract.text_encoder,
            ImageTextEncoder(model.model.language_model, image_token_id).eval(),
            inputs.sample_texts,
        ),
        Piece(contract.scoring_head, ScoringHead(model.score, temperature).eval(), contract.sample_hidden),
    )
    spec = ModelSpec(
        family="nemotron",
        pipeline="cross_encoder",
        model_id=source.model_id,
        revision=source.revision,
        text=TextSpec(pad_token_id=text.pad_token_id, max_tokens=text.max_tokens, buckets=text.buckets),
        prompt=PromptSpec(
            template=f"{{images}}{TEMPLATE}",
            image=IMAGE,
            image_token=IMAGE_TOKEN,
            missing_text="",
            suffix_token_ids=(),
            queries=("text",),
            documents=("text", "image", "image_text"),
        ),
        image=image,
        max_img_size=math.isqrt(image.max_pixels - 1) + 1,
        checkpoint_limits=CheckpointLimits(own_tokens, _MAX_TILES * image.tile_size**2),
    )
    card = ModelCard(spec, (contract.rerank_text, contract.rerank_image), tokenizer_json)
    reference = ImageReference(model, tokenizer, image, image_token_id, temperature, text.max_tokens)
    return Checkpoint(card, pieces, lambda: make_image_reference(reference, inputs))


def _check_parts(source: CheckpointSource) -> None:
    """Refuse other parts and other settings than those that are computed here.

    Raises:
        CheckpointError: There are some.
    """
    config, place = source.config, source.folder / "config.json"
    vision, language = config.get("vision_config") or {}, config.get("llm_config") or {}
    architectures = language.get("architectures") or [None]
    if vision.get("model_type") != "siglip_vision_model" or architectures[0] not in _LANGUAGE_MODELS:
        raise CheckpointError(
            f"{place}: vision_config has the model_type {vision.get('model_type')!r} and llm_config the architecture "
            f"{architectures[0]!r}; expected 'siglip_vision_model' and one of {list(_LANGUAGE_MODELS)}. Other parts "
            "are not supported"
        )
    processor = source.read_json("processor_config.json")
    files = (("config.json", config, _EXPECTED), ("processor_config.json", processor, _EXPECTED_OF_PROCESSOR))
    for name, content, expected in files:
        for key, known in expected.items():
            if content.get(key) not in known:
                raise CheckpointError(
                    f"{source.folder / name}: {key} is {content.get(key)!r}, expected "
                    f"{' or '.join(repr(value) for value in known if value is not None)}. Other ways of reading a pair "
                    "are not supported"
                )
    sizes = {
        "vision_config.image_size": vision.get("image_size"),
        "force_image_size": config.get("force_image_size") or vision.get("image_size"),
        "force_image_size of processor_config.json": processor.get("force_image_size") or vision.get("image_size"),
    }
    if len(set(sizes.values())) != 1 or vision["image_size"] % (MERGE_SIZE * vision["patch_size"]):
        raise CheckpointError(
            f"{place}: {', '.join(f'{key} is {value}' for key, value in sizes.items())}, and patches have "
            f"{vision.get('patch_size')} pixels; expected one size, of whole blocks of {MERGE_SIZE} x {MERGE_SIZE} "
            "patches"
        )


def _find_image_token(source: CheckpointSource, tokenizer: Any) -> int:
    """Return the id of the token that stands for a part of an image.

    Raises:
        CheckpointError: The tokenizer has another one than config.json says, or has none.
    """
    token_id = tokenizer.get_vocab().get(IMAGE_TOKEN)
    if token_id is None or token_id != source.config.get("img_context_token_id"):
        raise CheckpointError(
            f"the tokenizer in {source.folder} gives {IMAGE_TOKEN} the id {token_id}, config.json says "
            f"img_context_token_id {source.config.get('img_context_token_id')}; take both files from one checkpoint"
        )
    return int(token_id)


def _choose_tiles(source: CheckpointSource, vision: Any, width: int, limits: Limits, max_tokens: int) -> TileSpec:
    """Choose how many tiles an image may have: what the limits of pixels and of tokens admit, at least one.

    Raises:
        CheckpointError: The limit of tokens leaves no room for one, or the processor makes another number of tokens.
    """
    edge = int(vision.image_size)
    tile_tokens = (edge // int(vision.patch_size) // MERGE_SIZE) ** 2
    told = source.read_json("processor_config.json").get("num_image_token")
    if told not in (None, tile_tokens):
        raise CheckpointError(
            f"{source.folder / 'processor_config.json'}: num_image_token is {told}, expected {tile_tokens} for tiles "
            f"of {edge} pixels and patches of {vision.patch_size}; take all files from one checkpoint"
        )
    tiles = _MAX_TILES
    if limits.max_img_size is not None:
        tiles = max(1, min(tiles, limits.max_img_size**2 // edge**2))
    while tiles and tile_tokens * count_read_tiles(tiles) + _SHORT_TEXT > max_tokens:
        tiles -= 1
    if not tiles:
        raise CheckpointError(
            f"{source.folder}: an image takes {tile_tokens} tokens at least and a pair may have {max_tokens}; choose a "
            f"--max-tokens of {tile_tokens + _SHORT_TEXT} or more"
        )
    return TileSpec(edge, tiles, tile_tokens, "bicubic", width)

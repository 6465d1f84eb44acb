"""SigLIP and BLIP as their authors publish them: file names, old keys and configurations of old versions."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints.blip import build_blip
from checkpoints.inputs import TEXTS, make_images
from checkpoints.published import (
    complete_the_tokenizer,
    fall_back_to_bytes,
    lengthen_config,
    name_code,
    nest_the_processor,
    pickle_weights,
    shorten_config,
    split_weights,
)
from checkpoints.reference import TransformersModel, load_transformers
from checkpoints.siglip import build_siglip, build_siglip2, build_siglip2_naflex, write_sentencepiece
from lychee_client import Image
from lychee_client.preprocessing.text import TextProcessor
from lychee_export.checkpoint.source import CheckpointSource
from lychee_export.families import Checkpoint, load_checkpoint
from lychee_export.families.siglip_tokenizer import canonical_tokenizer

EMBEDDING_ATOL = 1e-5
SCORE_ATOL = 1e-4

Change = Callable[[Path], None]
Build = Callable[[Path], Path]

SIGLIP: dict[str, tuple[Build, tuple[Change, ...]]] = {
    "siglip as published": (build_siglip, (shorten_config,)),
    "siglip of code": (build_siglip, (shorten_config, name_code)),
    "siglip pickled": (build_siglip, (pickle_weights,)),
    "siglip in shards": (build_siglip, (shorten_config, split_weights)),
    "siglip2 as published": (build_siglip2, (shorten_config,)),
    "siglip2 in shards": (build_siglip2, (split_weights,)),
    "naflex as published": (build_siglip2_naflex, (shorten_config, split_weights)),
}
BLIP: dict[str, tuple[Change, ...]] = {
    "as published": (complete_the_tokenizer, lengthen_config),
    "pickled": (complete_the_tokenizer, lengthen_config, pickle_weights),
    "in shards": (split_weights,),
    "of transformers 5": (complete_the_tokenizer, nest_the_processor),
}


def preprocess(checkpoint: Checkpoint) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Return the tokens of all texts and the pixels of all images, made by the client."""
    card = checkpoint.card
    texts = TextProcessor(card.tokenizer_json, card.spec.text)
    tokens = texts.to_tensors(texts.tokenize_documents(TEXTS))
    pixels = np.stack([Image.from_pil(image).prepare(card.spec.image).pixel_values for image in make_images()])
    return {name: torch.from_numpy(value) for name, value in tokens.items()}, torch.from_numpy(pixels)


def embed(checkpoint: Checkpoint) -> tuple[torch.Tensor, torch.Tensor]:
    modules = {piece.signature.name: piece.module for piece in checkpoint.pieces}
    tokens, pixels = preprocess(checkpoint)
    with torch.no_grad():
        return modules["text_encoder"](tokens["input_ids"], tokens["attention_mask"]), modules["vision_encoder"](pixels)


def embed_with_transformers(reference: TransformersModel, checkpoint: Checkpoint) -> tuple[torch.Tensor, torch.Tensor]:
    """Do the same with transformers; a NaFlex model gets the square images that the client makes."""
    images = make_images()
    if reference.model.config.model_type == "siglip2":
        side = checkpoint.card.spec.image.height  # type: ignore[union-attr]
        images = [image.resize((side, side), 2) for image in images]
    embeddings = reference.embed(TEXTS, images)
    return embeddings.texts, embeddings.images


@pytest.mark.parametrize("name", SIGLIP)
def test_siglip_embeds_as_transformers(tmp_path: Path, name: str) -> None:
    build, changes = SIGLIP[name]
    original = load_transformers(build(tmp_path / "original"))
    folder = build(tmp_path / "published")
    for change in changes:
        change(folder)
    checkpoint = load_checkpoint(str(folder))
    for seen, expected in zip(embed(checkpoint), embed_with_transformers(original, checkpoint), strict=True):
        torch.testing.assert_close(seen, expected, atol=EMBEDDING_ATOL, rtol=0)


@pytest.mark.parametrize("name", BLIP)
def test_blip_matches_as_transformers(tmp_path: Path, name: str) -> None:
    original = load_transformers(build_blip(tmp_path / "original"))
    folder = build_blip(tmp_path / "published")
    for change in BLIP[name]:
        change(folder)
    checkpoint = load_checkpoint(str(folder))
    modules = {piece.signature.name: piece.module for piece in checkpoint.pieces}
    tokens, pixels = preprocess(checkpoint)
    with torch.no_grad():
        embeds = modules["vision_encoder"](pixels)
        hidden = modules["text_encoder"](tokens["input_ids"], tokens["attention_mask"], embeds)
        scores, _ = modules["scoring_head"](hidden)
    expected = original.match(TEXTS, make_images())
    torch.testing.assert_close(scores[:, 0], expected, atol=SCORE_ATOL, rtol=0)


def test_characters_without_a_piece_are_bytes_where_the_tokenizer_says_so(tmp_path: Path) -> None:
    write_sentencepiece(tmp_path)
    source = CheckpointSource("model", "0", tmp_path, {"model_type": "siglip"})
    unknown = canonical_tokenizer(source)[0].encode("龘")
    assert 2 in unknown.ids
    first = fall_back_to_bytes(tmp_path)
    ids = canonical_tokenizer(source)[0].encode("龘").ids
    assert ids[-4:-1] == [first + byte for byte in "龘".encode()]

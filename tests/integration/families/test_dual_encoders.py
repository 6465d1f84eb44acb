"""Dual encoders end to end: checkpoint folder, export, Triton, client; scores compared with transformers."""

from collections.abc import Callable
from pathlib import Path

import PIL.Image
import pytest
import torch
from checkpoints.inputs import TEXTS, make_images
from checkpoints.reference import TransformersModel, load_transformers
from lychee_client import Image, ImageText, LycheeClient, Text
from lychee_export.families.clip import IMAGE_CENTRE
from lychee_export.families.dual_encoder import TEXT_CENTRE

pytestmark = pytest.mark.triton

DUAL_ENCODERS = ["chinese_clip", "clip", "siglip", "siglip2_naflex"]
QUERY = "the yellow cat: 一只猫"


def score_with_transformers(
    reference: TransformersModel, query: torch.Tensor, texts: torch.Tensor, images: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the scores of text documents, image documents and documents with both, float32, (7,) each.

    Args:
        reference: Of the embeddings.
        query: float32, (embedding_dim,), of unit length, as the others.
        texts: float32, (7, embedding_dim).
        images: The same.
    """
    scale = reference.model.logit_scale.detach().exp()
    bias = getattr(reference.model, "logit_bias", None)
    image_bias = -scale * IMAGE_CENTRE if bias is None else bias.detach()
    text_logits = scale * (texts @ query - TEXT_CENTRE)
    image_logits = scale * (images @ query) + image_bias
    return text_logits.sigmoid(), image_logits.sigmoid(), ((text_logits + image_logits) / 2).sigmoid()


def square(reference: TransformersModel, images: list[PIL.Image.Image]) -> list[PIL.Image.Image]:
    """Stretch the images for a NaFlex model, which would keep their aspect ratio."""
    if reference.model.config.model_type != "siglip2":
        return images
    edge = 4 * reference.processor.patch_size
    return [image.resize((edge, edge), PIL.Image.Resampling.BILINEAR) for image in images]


@pytest.mark.parametrize("name", DUAL_ENCODERS)
def test_scores_equal_transformers(
    checkpoint_folder: Callable[[str], Path], serve: Callable[[str], LycheeClient], name: str
) -> None:
    reference, images = load_transformers(checkpoint_folder(name)), make_images()
    embeddings = reference.embed([QUERY, *TEXTS], square(reference, images))
    query, texts = embeddings.texts[0], embeddings.texts[1:]
    pictures = [Image.from_pil(image) for image in images]
    documents = [
        *map(Text, TEXTS),
        *pictures,
        *(ImageText(picture, text) for picture, text in zip(pictures, TEXTS, strict=True)),
    ]
    both = torch.nn.functional.normalize(query + embeddings.images[1], dim=0)
    queries = ((Text(QUERY), query), (pictures[1], embeddings.images[1]), (ImageText(pictures[1], QUERY), both))
    client = serve(name)
    assert client.check_golden_pairs().max_abs_error < 1e-4
    for asked, embedding in queries:
        expected = torch.cat(score_with_transformers(reference, embedding, texts, embeddings.images))
        response = client.rerank(asked, documents)
        seen = torch.empty(len(documents))
        for result in response.results:
            seen[result.index] = result.relevance_score
        torch.testing.assert_close(seen, expected, atol=1e-4, rtol=0)

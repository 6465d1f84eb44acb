"""What transformers' own classes compute of queries, texts and pages: reference rows and golden pairs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from lychee_client.manifest import GoldenInput, GoldenPair
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from lychee_export.contract.signature import Tensors
from lychee_export.families.colvision.contract import PageContract
from lychee_export.families.colvision.prompts import Prompts
from lychee_export.families.family import Reference, round_score
from lychee_export.families.qwen_vl.contract import Inputs
from lychee_export.families.qwen_vl.rows import cut_patches, pad_images, pad_texts, without_images
from lychee_export.families.samples import QUERIES, TEXTS, draw_page, encode, extreme_images, sample_images

__all__ = ["PageReference", "make_reference"]

Document: TypeAlias = str | Image.Image

_GOLDEN_TEXTS = ((0, 6), (1, 2), (3, 5))
"""Indices of (query, text)."""
_GOLDEN_IMAGES = ((0, 1), (2, 2), (3, 0))
"""Indices of (query, image)."""


@dataclass(frozen=True)
class PageReference:
    """The model as its authors have it, one text or page at a time and so without padding.

    Args:
        backbone: The language model with its vision tower, a class of transformers.
        projection: The linear layer that makes vectors of its states.
        processor: transformers' processor, with the export's image settings.
        prompts: What stands around queries and pages.
    """

    backbone: Any
    projection: nn.Linear
    processor: Any
    prompts: Prompts

    def read(self, document: Document) -> Mapping[str, Tensor]:
        """Return the model's inputs for a document."""
        if isinstance(document, str):
            return self.read_text(document)
        inputs: Mapping[str, Tensor] = self.processor(text=[self.prompts.page], images=[document], return_tensors="pt")
        return inputs

    def read_text(self, text: str) -> Mapping[str, Tensor]:
        """Return the model's inputs for a text as it stands."""
        inputs: Mapping[str, Tensor] = self.processor(text=[text], return_tensors="pt")
        return inputs

    def read_query(self, query: str) -> Mapping[str, Tensor]:
        """Return the model's inputs for a query."""
        return self.read_text(self.prompts.wrap_query(query))

    @torch.no_grad()
    def embed(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the vectors of all tokens, float32, (tokens, dim), of unit length.

        The backbone gets the shape of the image, so that its tokens have rows and columns: so colpali-engine has it,
        and transformers up to 4.53. ``ColQwen2ForRetrieval`` of transformers 5 does not pass it on.
        """
        return functional.normalize(self.projection(self.backbone(**inputs).last_hidden_state[0]), dim=-1)

    def score(self, query: str, document: Document) -> float:
        """Return the mean of the query's largest cosines, mapped from [-1, 1] to [0, 1]."""
        cosines = self.embed(self.read_query(query)) @ self.embed(self.read(document)).T
        return float((1 + cosines.amax(1).mean()) / 2)


def make_reference(model: PageReference, inputs: Inputs, contract: PageContract) -> Reference:
    """Make the ensembles' rows and the golden pairs, a page of fine print last among them.

    Raises:
        CheckpointError: The limits leave no room for a small image.
    """
    drawn = sample_images()
    pictures = [*drawn, *(image.transpose(Image.Transpose.ROTATE_90) for image in drawn), drawn[0].resize((140, 70))]
    vectors = [model.embed(model.read_query(query)) for query in QUERIES]
    length = min(map(len, vectors))  # rows of a batch have queries of one length

    def make_queries(rows: int) -> Tensors:
        queries = [vectors[row % len(vectors)][-length:] for row in range(rows)]
        return {"query_embeddings": torch.stack(queries)[:, None].half().numpy()}

    def make_pages(images: list[Image.Image], *, padded: bool = True) -> Tensors:
        texts = [model.read(image)["input_ids"][0].numpy() for image in images]
        patches = [[cut_patches(model.processor.image_processor, image)] for image in images]
        rows = pad_texts(texts, inputs, padded=padded) | pad_images(patches, inputs, padded=padded)
        return make_queries(len(images)) | rows

    texts = pad_texts([model.read(text)["input_ids"][0].numpy() for text in TEXTS], inputs)
    texts |= make_queries(len(TEXTS)) | without_images(len(TEXTS), inputs)
    page = draw_page()
    fits = model.read(page)["input_ids"].shape[1] <= inputs.max_tokens
    pairs: list[tuple[str, Document]] = [
        *((QUERIES[query], TEXTS[text]) for query, text in _GOLDEN_TEXTS),
        *((QUERIES[query], drawn[image]) for query, image in _GOLDEN_IMAGES),
        *([(QUERIES[1], page)] if fits else []),
    ]
    notes = (
        ()
        if fits
        else (
            f"a page takes {model.read(page)['input_ids'].shape[1]:,} tokens and the longest sequence is "
            f"{inputs.max_tokens:,}: pages will be refused; choose a larger --max-tokens or a smaller --max-img-size",
        )
    )

    def make_extreme_rows() -> Mapping[str, Tensors]:
        side = inputs.images.max_img_size
        return {contract.rerank_image.name: make_pages(list(extreme_images(side, side)), padded=False)}

    return Reference(
        {contract.rerank_text.name: texts, contract.rerank_image.name: make_pages(pictures)},
        tuple(
            GoldenPair(GoldenInput(query), _describe(document), round_score(model.score(query, document)))
            for query, document in pairs
        ),
        notes=notes,
        make_extreme_rows=make_extreme_rows,
    )


def _describe(document: Document) -> GoldenInput:
    return GoldenInput(document) if isinstance(document, str) else GoldenInput(None, encode(document))

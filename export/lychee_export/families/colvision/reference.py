"""What transformers' own classes compute of queries, texts and pages: reference rows and golden pairs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
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
from lychee_export.families.samples import QUERIES, TEXTS, draw_page, encode, extreme_images, sample_images

__all__ = ["Document", "PageReference", "make_reference"]

Document: TypeAlias = str | Image.Image
"""A text or a page."""

_GOLDEN_TEXTS = ((0, 6), (1, 2), (3, 5))
"""Indices of (query, text)."""
_GOLDEN_IMAGES = ((0, 1), (2, 2), (3, 0))
"""Indices of (query, image)."""


class PageReference(ABC):
    """A model as its authors have it, one text or page at a time and so without padding.

    Args:
        backbone: The language model with its vision tower, a class of transformers.
        projection: The linear layer that makes vectors of its states.
        prompts: What stands around queries, texts and pages.
    """

    def __init__(self, backbone: Any, projection: nn.Linear, prompts: Prompts) -> None:
        self._backbone = backbone
        self._projection = projection
        self.prompts = prompts

    @abstractmethod
    def read(self, text: str, image: Image.Image | None = None) -> Mapping[str, Tensor]:
        """Return the backbone's inputs, one row, for a text with an image in it, if there is one."""

    @abstractmethod
    def pad(self, documents: Sequence[Document], *, padded: bool = True) -> Tensors:
        """Return the encoders' inputs for texts, or for pages, as the client sends them.

        Args:
            documents: All texts or all pages.
            padded: Whether to leave a larger bucket, for the check of padding; otherwise they may fill all.
        """

    def read_document(self, document: Document) -> Mapping[str, Tensor]:
        """Return the backbone's inputs for a document."""
        if isinstance(document, str):
            return self.read(self.prompts.document_prefix + document)
        return self.read(self.prompts.page, document)

    @torch.no_grad()
    def embed(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the vectors of all tokens, float32, (tokens, dim), of unit length."""
        return functional.normalize(self._projection(self._backbone(**inputs).last_hidden_state[0]), dim=-1)

    def embed_query(self, query: str) -> Tensor:
        """Return the vectors of a query."""
        return self.embed(self.read(self.prompts.query_prefix + query + self.prompts.query_suffix))

    def score(self, query: str, document: Document) -> float:
        """Return the mean of the query's largest cosines, mapped from [-1, 1] to [0, 1]."""
        cosines = self.embed_query(query) @ self.embed(self.read_document(document)).T
        return float((1 + cosines.amax(1).mean()) / 2)


def make_reference(model: PageReference, contract: PageContract, max_tokens: int, side: int) -> Reference:
    """Make the ensembles' rows and the golden pairs, a page of fine print last among them.

    Args:
        model: The model.
        contract: The contract.
        max_tokens: The most tokens of a document.
        side: The most pixels of an image, as the side of a square.

    Raises:
        CheckpointError: The limits leave no room for a small image.
    """
    drawn = sample_images()
    pictures = [*drawn, *(image.transpose(Image.Transpose.ROTATE_90) for image in drawn), drawn[0].resize((140, 70))]
    vectors = [model.embed_query(query) for query in QUERIES]
    length = min(map(len, vectors))  # rows of a batch have queries of one length

    def make_rows(documents: Sequence[Document], *, padded: bool = True) -> Tensors:
        queries = [vectors[row % len(vectors)][-length:] for row in range(len(documents))]
        return {
            "query_embeddings": torch.stack(queries)[:, None].half().numpy(),
            **model.pad(documents, padded=padded),
        }

    page = draw_page()
    page_tokens = model.read_document(page)["input_ids"].shape[1]
    fits = page_tokens <= max_tokens
    pairs: list[tuple[str, Document]] = [
        *((QUERIES[query], TEXTS[text]) for query, text in _GOLDEN_TEXTS),
        *((QUERIES[query], drawn[image]) for query, image in _GOLDEN_IMAGES),
        *([(QUERIES[1], page)] if fits else []),
    ]
    note = (
        f"a page takes {page_tokens:,} tokens and the longest sequence is {max_tokens:,}: pages will be refused; "
        "choose a larger --max-tokens or a smaller --max-img-size"
    )
    return Reference(
        {contract.rerank_text.name: make_rows(TEXTS), contract.rerank_image.name: make_rows(pictures)},
        tuple(
            GoldenPair(GoldenInput(query), _describe(document), round_score(model.score(query, document)))
            for query, document in pairs
        ),
        notes=() if fits else (note,),
        make_extreme_rows=lambda: {
            contract.rerank_image.name: make_rows(extreme_images(side, side), padded=False),
        },
    )


def _describe(document: Document) -> GoldenInput:
    return GoldenInput(document) if isinstance(document, str) else GoldenInput(None, encode(document))

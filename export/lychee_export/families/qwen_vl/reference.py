"""What transformers itself computes: its processor and its model on texts and images, one pair at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from lychee_client.manifest import GoldenInput, GoldenPair
from PIL import Image
from torch import Tensor

from lychee_export.contract.signature import Tensors
from lychee_export.families.family import Reference, round_score
from lychee_export.families.heads import find_positive_label
from lychee_export.families.qwen_vl.inputs import PatchInputs
from lychee_export.families.qwen_vl.rows import cut_patches, pad_images, pad_texts, without_images
from lychee_export.families.samples import QUERIES, TEXTS, draw_page, encode, extreme_images, sample_images
from lychee_export.families.template import Template

__all__ = ["Part", "ReferenceModel", "make_reference"]

_ROWS, _LEAST_ROWS = 8, 7
_GOLDEN_TEXT_PAIRS, _GOLDEN_IMAGE_PAIRS = 3, 6


@dataclass(frozen=True)
class Part:
    """A query or a document: a text, an image, or both."""

    text: str | None = None
    image: Image.Image | None = None

    @property
    def modality(self) -> str:
        """The name of the modality in the prompt files."""
        return "_".join(name for name, part in (("image", self.image), ("text", self.text)) if part is not None)


class ReferenceModel:
    """Scores pairs as the checkpoint's authors do.

    Args:
        model: The transformers model, float32, in evaluation mode.
        processor: The transformers processor, with the export's image settings.
        template: The prompt.
        label_ids: The token ids whose logits are compared; None for a model with a score head.
    """

    def __init__(self, model: Any, processor: Any, template: Template, label_ids: tuple[int, int] | None) -> None:
        self._model = model
        self._processor = processor
        self._template = template
        self._label_ids = label_ids

    def read(self, query: Part, document: Part) -> dict[str, Tensor]:
        """Tokenize a pair.

        Returns:
            The model's inputs: one row, no padding.
        """
        image_block = self._template.prompt.image
        parts = [(image_block if part.image else "") + (part.text or "") for part in (query, document)]
        ordered = (query, document) if self._template.prompt.is_query_first else (document, query)
        inputs = dict(
            self._processor(
                text=[self._template.fill(*parts)],
                images=[part.image for part in ordered if part.image] or None,
                return_tensors="pt",
            )
        )
        suffix = torch.tensor([self._template.prompt.suffix_token_ids], dtype=torch.int64)  # (1, suffix tokens)
        for name, value in {"input_ids": suffix, "attention_mask": suffix**0, "mm_token_type_ids": suffix * 0}.items():
            inputs[name] = torch.cat([inputs[name], value.to(inputs[name].dtype)], 1)
        return inputs

    def compute_logit(self, query: Part, document: Part) -> float:
        """Score a pair; its relevance is the sigmoid."""
        with torch.no_grad():
            logits = self._model(**self.read(query, document), logits_to_keep=1, use_cache=False).logits[0, -1]
            if self._label_ids is None:
                scores = self._model.score(logits)
                if len(scores) > 1:
                    positive = find_positive_label(self._model.config)
                    scores = scores[positive] - scores[1 - positive]
                return float(scores) + self._template.logit_bias
        positive, negative = (logits[index] for index in self._label_ids)
        return float(positive - negative) + self._template.logit_bias

    def make_rows(
        self, pairs: Sequence[tuple[Part, Part]], inputs: PatchInputs, *, images: bool, padded: bool = True
    ) -> Tensors:
        """Make an ensemble's inputs as the client sends them, padded on the right to a common bucket.

        Args:
            pairs: The queries and documents.
            inputs: What the encoders take, which gives the buckets.
            images: Whether the rows are for ``rerank_image``; the other ensemble takes a zero row of image embeddings.
            padded: Whether the rows leave a larger bucket, for the check of padding; otherwise they may fill all.
        """
        texts = [self.read(*pair)["input_ids"][0].numpy() for pair in pairs]
        rows = pad_texts(texts, inputs, padded=padded)
        if not images:
            return rows | without_images(len(pairs), inputs)
        ordered = pairs if self._template.prompt.is_query_first else [(document, query) for query, document in pairs]
        pixels = [
            [cut_patches(self._processor.image_processor, part.image) for part in pair if part.image]
            for pair in ordered
        ]
        return rows | pad_images(pixels, inputs, padded=padded)


def make_reference(
    model: ReferenceModel,
    unreduced: ReferenceModel | None,
    template: Template,
    inputs: PatchInputs,
    ensembles: Sequence[str],
) -> Reference:
    """Make an ensemble's rows and the golden pairs, a page of fine print last among them.

    Args:
        model: The reference within the export's limits: what the export must compute.
        unreduced: The same with the checkpoint's own limit for images; None where the export has that too.
        template: The prompt.
        inputs: What the encoders take.
        ensembles: The names of the ensembles.

    Raises:
        CheckpointError: The limits leave no room for a short pair.
    """
    pairs = _choose_pairs(template, inputs.images.max_images)
    texts = [pair for pair in pairs if not _count_images(pair)]
    images = [pair for pair in pairs if _count_images(pair)]
    image_rows = [*images[: _ROWS - 1], *texts[:1], *images[_ROWS - 1 :]][:_ROWS]
    rows = {"rerank_text": (texts[:_ROWS], False), "rerank_image": (image_rows, True)}
    page = (Part(QUERIES[1]), Part(None, draw_page()))
    size = model.read(*page)["input_ids"].shape[1]
    fits = size <= inputs.max_tokens
    golden = [
        GoldenPair(_describe(query), _describe(document), round_score(_compute_score(model, query, document)))
        for query, document in [*texts[:_GOLDEN_TEXT_PAIRS], *images[:_GOLDEN_IMAGE_PAIRS], *([page] if fits else [])]
    ]
    notes = []
    if not fits:
        notes.append(
            f"a page takes {size:,} tokens and the longest sequence is {inputs.max_tokens:,}: pages will be refused; "
            "choose a larger --max-tokens or a smaller --max-img-size"
        )
    elif unreduced is not None:
        notes.append(
            f"a page of fine print scores {golden[-1].relevance_score:.4f} within the limits of this export and "
            f"{_compute_score(unreduced, *page):.4f} at the checkpoint's own resolution: the smaller image, not the "
            "export, makes the difference"
        )

    def make_extreme_rows() -> dict[str, Tensors]:
        side = inputs.images.max_img_size
        drawn = [Part(None, image) for image in extreme_images(side, side)]
        extremes = [(pair[0], image) for pair in images if not pair[0].image for image in drawn][: len(drawn)]
        return {"rerank_image": model.make_rows(extremes, inputs, images=True, padded=False)}

    return Reference(
        {name: model.make_rows(rows[name][0], inputs, images=rows[name][1]) for name in ensembles},
        tuple(golden),
        notes=tuple(notes),
        make_extreme_rows=make_extreme_rows,
    )


def _compute_score(model: ReferenceModel, query: Part, document: Part) -> float:
    return float(torch.tensor(model.compute_logit(query, document), dtype=torch.float64).sigmoid())


def _describe(part: Part) -> GoldenInput:
    return GoldenInput(part.text, encode(part.image) if part.image else None)


def _choose_pairs(template: Template, max_images: int) -> list[tuple[Part, Part]]:
    """Combine texts and images in the ways that the model reads, the first of every combination of modalities first."""
    drawn = sample_images()
    queries = [
        *(Part(text) for text in QUERIES),
        *(Part(None, image) for image in drawn),
        *(Part(text, image) for text, image in zip(QUERIES, drawn, strict=False)),
    ]
    documents = [
        *(Part(text) for text in TEXTS),
        *(Part(None, image) for image in reversed(drawn)),
        *(Part(text, image) for text, image in zip(TEXTS, drawn[1:], strict=False)),
    ]
    groups: dict[tuple[str, str], list[tuple[Part, Part]]] = {}
    for pair in product(queries, documents):
        modalities = (pair[0].modality, pair[1].modality)
        if template.reads(*modalities) and _count_images(pair) <= max_images:
            groups.setdefault(modalities, []).append(pair)
    chosen = []
    for turn in range(max(map(len, groups.values()))):
        for group in groups.values():
            if turn < len(group):
                # A step that has no factor in common with the groups' sizes: queries and documents change in turn.
                chosen.append(group[turn * 11 % len(group)])
    return chosen


def _count_images(pair: tuple[Part, Part]) -> int:
    return sum(part.image is not None for part in pair)

"""The Qwen-VL rerankers as transformers runs them, with the published prompts spelled out.

Nothing here comes from the exporter or the client.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from transformers import (
    AutoTokenizer,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLForConditionalGeneration,
    Qwen3VLForConditionalGeneration,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from checkpoints.qwen_vl import JINA_LOGIT_BIAS

IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
INSTRUCTIONS = {
    "qwen2_5_vl": "Given a web search query, retrieve relevant passages that answer the query",
    "qwen3_vl": "Given a search query, retrieve relevant candidates that answer the query.",
}
"""The default instructions by model type."""
JINA_SCORE_TOKEN_ID = 100
YES_NO_PROMPT = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n<Instruct>: {instruction}'
    "<Query>:{query}\n<Document>:{document}<|im_end|>\n<|im_start|>assistant\n"
)
MONOQWEN_PROMPT = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n{document}Assert the relevance of "
    "the previous image document to the following query, answer True or False. The query is: {query}<|im_end|>\n"
    "<|im_start|>assistant\n"
)
JINA_PROMPT = "**Document**:\n{document}\n**Query**:\n{query}"

_CLASSES = {
    "Qwen2VLForConditionalGeneration": (Qwen2VLForConditionalGeneration, MONOQWEN_PROMPT, ("True", "False")),
    "JinaVLForRanking": (Qwen2VLForConditionalGeneration, JINA_PROMPT, None),
    "Qwen2_5_VLForConditionalGeneration": (Qwen2_5_VLForConditionalGeneration, YES_NO_PROMPT, ("yes", "no")),
    "Qwen3VLForConditionalGeneration": (Qwen3VLForConditionalGeneration, YES_NO_PROMPT, ("yes", "no")),
}


@dataclass(frozen=True)
class Part:
    """A query or a document."""

    text: str | None = None
    image: Image.Image | None = None
    more_images: tuple[Image.Image, ...] = ()

    @property
    def images(self) -> tuple[Image.Image, ...]:
        """All images, in the order of the prompt."""
        return (() if self.image is None else (self.image,)) + self.more_images


@dataclass(frozen=True)
class Batch:
    """What transformers reads and computes for a batch of pairs.

    Attributes:
        inputs: Of the model, one row per pair; the images of all rows packed.
        pixels: By row and image, the patches before normalization: uint8, (num_patches, patch_bytes).
        grids: By row and image, int64, (3,).
        image_embeds: By row, float32, (num_image_tokens, embedding_dim * (1 + deepstack layers)).
        hidden: float32, (batch_size, hidden_size): the last real token's, after the final norm.
        scores: float32, (batch_size,).
    """

    inputs: dict[str, Tensor]
    pixels: list[list[Tensor]]
    grids: list[list[Tensor]]
    image_embeds: list[Tensor]
    hidden: Tensor
    scores: Tensor

    def pack_images(self, patch_bytes: int, max_images: int, num_patches: int | None = None) -> tuple[Tensor, Tensor]:
        """Return the exported encoder's inputs: each row's images one after the other, padded with 8 patches or more.

        Args:
            patch_bytes: Bytes of one patch.
            max_images: Rows of a pair's grid.
            num_patches: Patches of a row; None: as few as possible.
        """
        num_patches = num_patches or max(sum(map(len, row)) for row in self.pixels) + 8
        pixel_values = torch.zeros((len(self.pixels), num_patches, patch_bytes), dtype=torch.uint8)
        grids = torch.zeros((len(self.pixels), max_images, 3), dtype=torch.int64)
        for index, (images, shapes) in enumerate(zip(self.pixels, self.grids, strict=True)):
            if images:
                packed = torch.cat(images)
                pixel_values[index, : len(packed)] = packed
                grids[index, : len(shapes)] = torch.stack(shapes)
        return pixel_values, grids

    def compare(self, image_embeds: Tensor, hidden: Tensor, scores: Tensor) -> tuple[float, float, float]:
        """Return the largest difference of embeddings, hidden states and scores from these."""
        differences = [
            float((row[: len(expected)] - expected).abs().max())
            for row, expected in zip(image_embeds, self.image_embeds, strict=True)
            if len(expected)
        ]
        return (
            max(differences, default=0.0),
            float((hidden - self.hidden).abs().max()),
            float((scores - self.scores).abs().max()),
        )


class QwenReranker:
    """One checkpoint.

    Args:
        folder: Of the checkpoint.
        min_pixels: Least pixels of an image.
        max_pixels: Most pixels of an image.
    """

    def __init__(self, folder: Path, min_pixels: int, max_pixels: int) -> None:
        config = json.loads((folder / "config.json").read_text())
        model_class, self.prompt, self._labels = _CLASSES[config["architectures"][0]]
        self.instruction = INSTRUCTIONS.get(config["model_type"])
        self.model: Any = model_class.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self._score = None if self._labels else _load_score_head(folder)
        constants = json.loads((folder / "preprocessor_config.json").read_text())
        self._images = Qwen2VLImageProcessorPil(
            size={"shortest_edge": min_pixels, "longest_edge": max_pixels},
            **{key: constants[key] for key in ("patch_size", "image_mean", "image_std")},
        )

    def score(self, query: Part, document: Part) -> float:
        """Score a pair alone."""
        return float(self.run([(query, document)]).scores[0])

    def pad_to(self, query: Part, words: str, num_tokens: int) -> Part:
        """Return the longest document of whole words, repeated, with which a pair has at most so many tokens."""
        count = 1
        while len(self.tokenize(query, Part(words * (count + 1)))) <= num_tokens:
            count += 1
        return Part(words * count)

    def tokenize(self, query: Part, document: Part) -> list[int]:
        """Return the pair's token ids."""
        ordered = (document, query) if self._document_first else (query, document)
        grids = [self._cut(image)[1] for part in ordered for image in part.images]
        parts = {
            "query": IMAGE * len(query.images) + (query.text or ""),
            "document": IMAGE * len(document.images) + (document.text or ""),
        }
        before, *after = self.prompt.format(instruction=self.instruction, **parts).split("<|image_pad|>")
        for grid, text in zip(grids, after, strict=True):
            before += "<|image_pad|>" * (int(grid.prod()) // 4) + text
        ids: list[int] = self.tokenizer(before)["input_ids"]
        return ids if self._labels else [*ids, JINA_SCORE_TOKEN_ID]

    def run(self, pairs: Sequence[tuple[Part, Part]], padding_side: str = "left") -> Batch:
        """Run the model on a batch of pairs."""
        ids = [self.tokenize(*pair) for pair in pairs]
        length = max(map(len, ids))
        input_ids = torch.full((len(pairs), length), self.tokenizer.pad_token_id)
        attention_mask = torch.zeros_like(input_ids)
        for row, tokens in enumerate(ids):
            place = slice(0, len(tokens)) if padding_side == "right" else slice(length - len(tokens), length)
            input_ids[row, place] = torch.tensor(tokens)
            attention_mask[row, place] = 1
        cut = [
            [self._cut(image) for part in (pair[::-1] if self._document_first else pair) for image in part.images]
            for pair in pairs
        ]
        inputs = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "mm_token_type_ids": (input_ids == self.model.config.image_token_id).int(),
        }
        packed = [image for row in cut for image in row]
        if packed:
            inputs["pixel_values"] = torch.cat([values for values, _, _ in packed])
            inputs["image_grid_thw"] = torch.stack([grid for _, grid, _ in packed])
        with torch.no_grad():
            image_embeds = [self._embed(row) for row in cut]
            output = self.model.model(**inputs, use_cache=False).last_hidden_state
        last = (attention_mask * torch.arange(length)).argmax(1)
        hidden = output[torch.arange(len(pairs)), last]
        return Batch(
            inputs,
            [[patches for _, _, patches in row] for row in cut],
            [[grid for _, grid, _ in row] for row in cut],
            image_embeds,
            hidden,
            self._to_scores(hidden),
        )

    @property
    def _document_first(self) -> bool:
        return self.prompt.index("{document}") < self.prompt.index("{query}")

    def _cut(self, image: Image.Image) -> tuple[Tensor, Tensor, Tensor]:
        """Return the model's pixel values, the grid, and the patches before normalization."""
        normalized = self._images(image, return_tensors="pt")
        plain = self._images(image, do_rescale=False, do_normalize=False, return_tensors="pt")["pixel_values"]
        frames = plain.unflatten(1, (3, 2, -1))
        assert torch.equal(frames[:, :, 0], frames[:, :, 1])
        return normalized["pixel_values"], normalized["image_grid_thw"][0], frames[:, :, 0].flatten(1).to(torch.uint8)

    def _embed(self, images: Sequence[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
        if not images:
            return torch.zeros(0, 1)
        visual = self.model.model.visual
        output = visual(
            torch.cat([values for values, _, _ in images]), grid_thw=torch.stack([grid for _, grid, _ in images])
        )
        return torch.cat([output.pooler_output, *(getattr(output, "deepstack_features", None) or [])], -1)

    def _to_scores(self, hidden: Tensor) -> Tensor:
        with torch.no_grad():
            if self._labels is None:
                assert self._score is not None
                dense = torch.relu(hidden @ self._score["0.weight"].T + self._score["0.bias"])
                logits = dense @ self._score["2.weight"].T + self._score["2.bias"]
                return torch.sigmoid(logits[:, 0] - JINA_LOGIT_BIAS)
            labels = [self.tokenizer(label)["input_ids"] for label in self._labels]
            logits = self.model.lm_head(hidden)[:, [token_id for (token_id,) in labels]]
        return torch.softmax(logits, -1)[:, 0]


def _load_score_head(folder: Path) -> dict[str, Tensor]:
    weights = load_file(folder / "model.safetensors")
    return {name.removeprefix("score."): value for name, value in weights.items() if name.startswith("score.")}

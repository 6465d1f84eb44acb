"""The authors' side of a comparison of models that read pages: nothing here comes from the exporter or the client.

``ColQwen2ForRetrieval`` and ``ColPaliForRetrieval`` are transformers' own, and so are their processors. ColQwen2's gets
the positions that it does not compute any more since version 5, as colpali-engine 0.3.18 has them. The other layout is
rebuilt from reading colpali-engine: the backbone of transformers, and a linear layer.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from transformers import (
    AutoTokenizer,
    ColPaliForRetrieval,
    ColPaliProcessor,
    ColQwen2ForRetrieval,
    ColQwen2Processor,
    PaliGemmaConfig,
    PaliGemmaModel,
    Qwen2_5_VLConfig,
    Qwen2_5_VLModel,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

PAGE = "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Describe the image.<|im_end|><|endoftext|>"
_SETTINGS: dict[str, Any] = {"dtype": torch.float32, "attn_implementation": "eager"}
_NAMES = ("input_ids", "attention_mask")


class PageModel(ABC):
    """A checkpoint as its authors run it.

    Args:
        model: The class of transformers that makes vectors, or a backbone in float32.
        processor: transformers' processor.
        projection: The weight and bias of the linear layer; None where the model has it.
    """

    def __init__(self, model: Any, processor: Any, projection: tuple[Tensor, Tensor] | None = None) -> None:
        self.model = model.eval()
        self.processor = processor
        self.projection = projection

    def read_query(self, query: str) -> Mapping[str, Tensor]:
        """Return the inputs for a query."""
        inputs: Mapping[str, Tensor] = self.processor(text=[query], return_tensors="pt")
        return inputs

    @abstractmethod
    def read_text(self, text: str) -> Mapping[str, Tensor]:
        """Return the inputs for a text that is a document, as colpali-engine's ``process_texts`` has them."""

    def read(self, document: str | Image.Image) -> Mapping[str, Tensor]:
        """Return the inputs for a document."""
        if isinstance(document, str):
            return self.read_text(document)
        inputs: Mapping[str, Tensor] = self.processor(images=[document.convert("RGB")], return_tensors="pt")
        return inputs

    @abstractmethod
    def embed(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the vectors of all tokens, float32, (tokens, dim), of unit length."""

    def compute_logits(self, query: str, documents: Sequence[str | Image.Image]) -> Tensor:
        """Return for each vector of the query the largest cosine, summed: float32, (documents,)."""
        with torch.no_grad():
            asked = self.embed(self.read_query(query))
            return torch.stack([(asked @ self.embed(self.read(each)).T).amax(1).sum() for each in documents])

    def score(self, query: str, documents: Sequence[str | Image.Image]) -> Tensor:
        """Return the mean cosine, mapped from [-1, 1] to [0, 1]: float32, (documents,)."""
        return (1 + self.compute_logits(query, documents) / self.read_query(query)["input_ids"].shape[1]) / 2

    def _project(self, states: Tensor) -> Tensor:
        assert self.projection is not None
        weight, bias = self.projection
        projected = states @ weight.T + bias
        return projected / projected.norm(dim=-1, keepdim=True)


class ColQwenModel(PageModel):
    """ColQwen2 in transformers' layout, or ColQwen2.5 in colpali-engine's, whose queries end without a line break."""

    def read_query(self, query: str) -> Mapping[str, Tensor]:
        """See PageModel."""
        return (
            self.read_text("Query: " + query + "<|endoftext|>" * 10) if self.projection else super().read_query(query)
        )

    def read_text(self, text: str) -> Mapping[str, Tensor]:
        """See PageModel."""
        encoded: Mapping[str, Tensor] = self.processor.tokenizer([text], return_tensors="pt")
        return encoded

    def embed(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """See PageModel."""
        ids, grid = inputs["input_ids"], inputs.get("image_grid_thw")
        backbone = self.model if self.projection else self.model.vlm
        is_image = (ids == backbone.config.image_token_id).int()
        places, _ = backbone.get_rope_index(ids, mm_token_type_ids=is_image, image_grid_thw=grid)
        given: dict[str, Any] = {name: inputs[name] for name in _NAMES} | {"position_ids": places}
        if grid is not None:
            given |= {"pixel_values": inputs["pixel_values"], "image_grid_thw": grid}
        if self.projection is None:
            vectors: Tensor = self.model(**given).embeddings[0]
            return vectors
        if grid is not None:
            given |= {"pixel_values": inputs["pixel_values"][0], "mm_token_type_ids": is_image}
        return self._project(backbone(**given).last_hidden_state[0])


class ColPaliModel(PageModel):
    """ColPali in either layout."""

    def read_text(self, text: str) -> Mapping[str, Tensor]:
        """See PageModel."""
        tokenizer = self.processor.tokenizer
        encoded = tokenizer([tokenizer.bos_token + text], return_tensors="pt")
        return {name: encoded[name] for name in _NAMES} | {"token_type_ids": encoded["input_ids"] * 0}

    def embed(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """See PageModel."""
        given = {name: inputs[name] for name in (*_NAMES, "token_type_ids", "pixel_values") if name in inputs}
        if self.projection is None:
            vectors: Tensor = self.model(**given).embeddings[0]
            return vectors
        return self._project(self.model(**given).last_hidden_state[0])


def load_page_model(folder: Path, max_pixels: int) -> PageModel:
    """Load a checkpoint.

    Args:
        folder: The folder of the checkpoint.
        max_pixels: The most pixels of an image, as an export has them, where images have no fixed size.
    """
    kind = json.loads((folder / "config.json").read_text())["model_type"]
    constants = json.loads((folder / "preprocessor_config.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if kind in ("colpali", "paligemma"):
        images = SiglipImageProcessorPil(size=constants["size"])
        images.image_seq_length = constants["image_seq_length"]
        processor: Any = ColPaliProcessor(images, tokenizer)
        if kind == "colpali":
            return ColPaliModel(ColPaliForRetrieval.from_pretrained(folder, **_SETTINGS), processor)
        backbone: Any = PaliGemmaModel._from_config(PaliGemmaConfig.from_pretrained(folder), **_SETTINGS)
        return ColPaliModel(backbone, processor, _fill(backbone, folder))
    images = Qwen2VLImageProcessorPil(
        size={"shortest_edge": constants["min_pixels"], "longest_edge": max_pixels},
        **{key: constants[key] for key in ("patch_size", "image_mean", "image_std")},
    )
    processor = ColQwen2Processor(images, tokenizer, visual_prompt_prefix=PAGE)
    if kind == "colqwen2":
        return ColQwenModel(ColQwen2ForRetrieval.from_pretrained(folder, **_SETTINGS), processor)
    backbone = Qwen2_5_VLModel._from_config(Qwen2_5_VLConfig.from_pretrained(folder), **_SETTINGS)
    return ColQwenModel(backbone, processor, _fill(backbone, folder))


def _fill(backbone: Any, folder: Path) -> tuple[Tensor, Tensor]:
    """Load the weights that the files have by the names of transformers 4; return those of the linear layer."""
    weights = load_file(folder / "model.safetensors")
    projection = weights.pop("custom_text_proj.weight"), weights.pop("custom_text_proj.bias")
    renamed = {}
    for name, value in weights.items():
        today = name.removeprefix("model.").replace("language_model.model.", "language_model.")
        today = today.replace("vision_model.", "")
        if today.startswith(("layers.", "embed_tokens.", "norm.")):
            today = f"language_model.{today}"
        renamed[today] = value
    backbone.load_state_dict(renamed)
    return projection

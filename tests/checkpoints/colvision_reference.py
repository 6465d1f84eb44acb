"""The authors' side of a comparison of models that read pages: nothing here comes from the exporter or the client.

``ColQwen2ForRetrieval`` and its processor are transformers' own. It gets the positions that it does not compute any
more since version 5, as colpali-engine 0.3.18 has them. The other layout is rebuilt from reading colpali-engine.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from transformers import (
    AutoTokenizer,
    ColQwen2ForRetrieval,
    ColQwen2Processor,
    Qwen2_5_VLConfig,
    Qwen2_5_VLModel,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

PAGE = "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Describe the image.<|im_end|><|endoftext|>"


@dataclass(frozen=True)
class PageModel:
    """A checkpoint as its authors run it.

    Args:
        model: ``ColQwen2ForRetrieval``, or the backbone in float32.
        projection: The weight and bias of the linear layer; None where the model has it.
        processor: transformers' processor of ColQwen2.
        has_newline: Whether a query ends with a line break, as transformers has it and colpali-engine has not.
    """

    model: Any
    projection: tuple[Tensor, Tensor] | None
    processor: Any
    has_newline: bool

    def read_query(self, query: str) -> Mapping[str, Tensor]:
        """Return the inputs for a query."""
        if self.has_newline:
            inputs: Mapping[str, Tensor] = self.processor(text=[query], return_tensors="pt")
            return {name: inputs[name] for name in ("input_ids", "attention_mask")}
        return self.read_text("Query: " + query + "<|endoftext|>" * 10)

    def read_text(self, text: str) -> Mapping[str, Tensor]:
        """Return the inputs for a text that is a document: alone."""
        encoded = self.processor.tokenizer([text], return_tensors="pt")
        return {name: encoded[name] for name in ("input_ids", "attention_mask")}

    def read_page(self, image: Image.Image) -> Mapping[str, Tensor]:
        """Return the inputs for an image that is a document."""
        inputs: Mapping[str, Tensor] = self.processor(images=[image.convert("RGB")], return_tensors="pt")
        return inputs

    def read(self, document: str | Image.Image) -> Mapping[str, Tensor]:
        """Return the inputs for a document."""
        return self.read_text(document) if isinstance(document, str) else self.read_page(document)

    @torch.no_grad()
    def embed(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the vectors of all tokens, float32, (tokens, dim), of unit length."""
        ids, grid = inputs["input_ids"], inputs.get("image_grid_thw")
        backbone = self.model if self.projection else self.model.vlm
        is_image = (ids == backbone.config.image_token_id).int()
        places, _ = backbone.get_rope_index(ids, mm_token_type_ids=is_image, image_grid_thw=grid)
        given: dict[str, Any] = {"input_ids": ids, "attention_mask": inputs["attention_mask"], "position_ids": places}
        if grid is not None:
            given |= {"pixel_values": inputs["pixel_values"], "image_grid_thw": grid}
        if self.projection is None:
            vectors: Tensor = self.model(**given).embeddings[0]
            return vectors
        if grid is not None:
            given |= {"pixel_values": inputs["pixel_values"][0], "mm_token_type_ids": is_image}
        weight, bias = self.projection
        projected = backbone(**given).last_hidden_state[0] @ weight.T + bias
        return projected / projected.norm(dim=-1, keepdim=True)

    def compute_logits(self, query: str, documents: Sequence[str | Image.Image]) -> Tensor:
        """Return for each vector of the query the largest cosine, summed: float32, (documents,)."""
        asked = self.embed(self.read_query(query))
        return torch.stack([(asked @ self.embed(self.read(each)).T).amax(1).sum() for each in documents])

    def score(self, query: str, documents: Sequence[str | Image.Image]) -> Tensor:
        """Return the mean cosine, mapped from [-1, 1] to [0, 1]: float32, (documents,)."""
        return (1 + self.compute_logits(query, documents) / self.read_query(query)["input_ids"].shape[1]) / 2


def load_page_model(folder: Path, max_pixels: int) -> PageModel:
    """Load a checkpoint.

    Args:
        folder: The folder of the checkpoint.
        max_pixels: The most pixels of an image, as an export has them.
    """
    config = json.loads((folder / "config.json").read_text())
    constants = json.loads((folder / "preprocessor_config.json").read_text())
    images = Qwen2VLImageProcessorPil(
        size={"shortest_edge": constants["min_pixels"], "longest_edge": max_pixels},
        **{key: constants[key] for key in ("patch_size", "image_mean", "image_std")},
    )
    processor = ColQwen2Processor(images, AutoTokenizer.from_pretrained(folder), visual_prompt_prefix=PAGE)
    settings: dict[str, Any] = {"dtype": torch.float32, "attn_implementation": "eager"}
    if config["model_type"] == "colqwen2":
        model: Any = ColQwen2ForRetrieval.from_pretrained(folder, **settings)
        return PageModel(model.eval(), None, processor, has_newline=True)
    weights = load_file(folder / "model.safetensors")
    projection = weights.pop("custom_text_proj.weight"), weights.pop("custom_text_proj.bias")
    backbone: Any = Qwen2_5_VLModel._from_config(Qwen2_5_VLConfig.from_pretrained(folder), **settings)
    renamed = {
        name.replace("model.", "language_model.", 1) if name.startswith("model.") else name: each
        for name, each in weights.items()
    }
    backbone.load_state_dict(renamed)
    return PageModel(backbone.eval(), projection, processor, has_newline=False)

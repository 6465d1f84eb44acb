"""transformers as the judge of Llama Nemotron VL: nothing here comes from the exporter or the client.

The parts are transformers' ``SiglipVisionModel`` and ``LlamaModel``. How an image becomes tiles and where they stand in
the prompt is written down here once more, from the same public copies of the checkpoint's own processor.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoTokenizer, SiglipVisionConfig, SiglipVisionModel

from checkpoints.nemotron_reference import load_llama, read_both_ways

MAX_TILES = 6
"""As the model card has it."""

Document = tuple[str | None, Image.Image | None]


@dataclass(frozen=True)
class NemotronVLModel:
    """A reranker of texts and images.

    Args:
        vision_model: In float32.
        projector: In float32.
        language_model: In float32.
        weight: Of the head, float32, (1, hidden_size).
        tokenizer: Of the checkpoint.
        config: The content of config.json.
        max_tokens: The longest prompt.
    """

    vision_model: Any
    projector: Any
    language_model: Any
    weight: Tensor
    tokenizer: Any
    config: dict[str, Any]
    max_tokens: int

    def tokenize(self, query: str, documents: Sequence[Document]) -> dict[str, Tensor]:
        """Tokenize prompts, padded on the left to the longest; too long a one loses its end."""
        vision = self.config["vision_config"]
        per_tile = (vision["image_size"] // vision["patch_size"]) ** 2 // 4
        prompts = []
        for text, image in documents:
            prompt = f"question:{query} \n \n passage:{text or ''}"
            if image is not None:
                prompt = f"<img>{'<IMG_CONTEXT>' * per_tile * len(self.cut(image))}</img> {prompt}"
            prompts.append(prompt)
        options = {"padding": True, "truncation": True, "max_length": self.max_tokens}
        return dict(self.tokenizer(prompts, return_tensors="pt", **options))

    def cut(self, image: Image.Image) -> list[Image.Image]:
        """Return an image's tiles, the whole last where there are several."""
        edge = self.config["vision_config"]["image_size"]
        columns, rows = choose_grid(*image.size, edge)
        grid = image.resize((columns * edge, rows * edge))
        tiles = []
        for index in range(columns * rows):
            left, top = index % columns * edge, index // columns * edge
            tiles.append(grid.crop((left, top, left + edge, top + edge)))
        return [*tiles, image.resize((edge, edge))] if len(tiles) > 1 else tiles

    @torch.no_grad()
    def compute_logits(self, query: str, documents: Sequence[Document]) -> Tensor:
        """Score pairs: float32, (num_pairs,)."""
        inputs = self.tokenize(query, documents)
        embeds = self.language_model.embed_tokens(inputs["input_ids"])
        tiles = [tile for _, image in documents if image is not None for tile in self.cut(image)]
        if tiles:
            embeds[inputs["input_ids"] == self.config["img_context_token_id"]] = self._embed(tiles)
        pooled = read_both_ways(self.language_model, embeds, inputs["attention_mask"])
        return pooled @ self.weight[0] / self.config["temperature"]

    def score(self, query: str, documents: Sequence[Document]) -> Tensor:
        """Return the sigmoid of the logits: float32, (num_pairs,)."""
        return torch.sigmoid(self.compute_logits(query, documents))

    def _embed(self, tiles: Sequence[Image.Image]) -> Tensor:
        """Return what stands for the tiles' tokens: float32, (num_tokens, hidden_size)."""
        pixels = torch.from_numpy(np.stack([np.asarray(tile.convert("RGB")) for tile in tiles])).permute(0, 3, 1, 2)
        normalized = ((pixels / 255 - 0.5) / 0.5).to(torch.bfloat16).float()
        patches = self.vision_model(pixel_values=normalized).last_hidden_state  # after the tower's last norm
        side = int(patches.shape[1] ** 0.5)
        tokens = []
        for square in patches.reshape(len(tiles), side, side, -1):
            for row in range(0, side, 2):
                for column in range(0, side, 2):
                    tokens.append(square[row : row + 2, column : column + 2].reshape(-1))
        embeds: Tensor = self.projector(torch.stack(tokens))
        return embeds


def choose_grid(width: int, height: int, edge: int) -> tuple[int, int]:
    """Return the columns and rows of tiles that the checkpoint's processor takes."""
    grids = {
        (columns, rows)
        for most in range(1, MAX_TILES + 1)
        for columns in range(1, most + 1)
        for rows in range(1, most + 1)
        if columns * rows <= MAX_TILES
    }
    aspect, pixels = width / height, width * height
    best, chosen = float("-inf"), (1, 1)
    for columns, rows in sorted(grids, key=lambda grid: grid[0] * grid[1]):
        shape = columns / rows
        worth = min((columns * rows * edge * edge) / pixels, 0.6) * min(shape / aspect, aspect / shape)
        if worth > best:
            best, chosen = worth, (columns, rows)
    return chosen


def load_nemotron_vl_model(folder: Path, max_tokens: int = 10240) -> NemotronVLModel:
    """Load a checkpoint, to read so many tokens."""
    config = json.loads((folder / "config.json").read_text())
    weights = {name: value.float() for name, value in load_file(folder / "model.safetensors").items()}

    def part(*prefixes: str) -> dict[str, Tensor]:
        for prefix in prefixes:
            found = {name[len(prefix) :]: value for name, value in weights.items() if name.startswith(prefix)}
            if found:
                return found
        raise AssertionError(prefixes)

    vision_config = {name: value for name, value in config["vision_config"].items() if name != "model_type"}
    vision = SiglipVisionModel(SiglipVisionConfig(**vision_config, attn_implementation="eager")).eval()
    vision.load_state_dict(part("model.vision_model.vision_model.", "model.vision_model."))
    merged, width = 4 * vision_config["hidden_size"], config["llm_config"]["hidden_size"]
    projector = nn.Sequential(nn.LayerNorm(merged), nn.Linear(merged, width), nn.GELU(), nn.Linear(width, width))
    projector.load_state_dict(part("model.mlp1."))
    language = load_llama(config["llm_config"], part("model.language_model."))
    tokenizer = AutoTokenizer.from_pretrained(folder, config=language.config, padding_side="left")
    return NemotronVLModel(vision, projector, language, weights["score.weight"], tokenizer, config, max_tokens)

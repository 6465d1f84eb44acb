"""Tiny random checkpoints of open_clip: its model written out with torch alone, and its files as the hub has them.

Nothing here comes from the exporter or from transformers.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from checkpoints.clip import write_clip_tokenizer

MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
_WIDTH, _HEADS, _EMBED_DIM, _CONTEXT = 32, 4, 24, 77


class QuickGELU(nn.Module):
    """OpenAI's approximation."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the activation."""
        return x * torch.sigmoid(1.702 * x)


class _Block(nn.Module):
    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(_WIDTH), nn.LayerNorm(_WIDTH)
        self.attn = nn.MultiheadAttention(_WIDTH, _HEADS, batch_first=True)
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(_WIDTH, 2 * _WIDTH), "c_proj": nn.Linear(2 * _WIDTH, _WIDTH)})
        self.activation = activation

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Return the states after the block."""
        normed = self.ln_1(x)
        x = x + self.attn(normed, normed, normed, need_weights=False, attn_mask=mask)[0]
        return cast(Tensor, x + self.mlp["c_proj"](self.activation(self.mlp["c_fc"](self.ln_2(x)))))


class _Transformer(nn.Module):
    def __init__(self, layers: int, activation: nn.Module) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(_Block(activation) for _ in range(layers))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the states after the last block."""
        for block in self.resblocks:
            x = block(x, mask)
        return x


class _Visual(nn.Module):
    def __init__(self, image_size: int, patch_size: int, activation: nn.Module) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, _WIDTH, patch_size, patch_size, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(_WIDTH) * 0.3)
        self.positional_embedding = nn.Parameter(torch.randn((image_size // patch_size) ** 2 + 1, _WIDTH) * 0.3)
        self.ln_pre, self.ln_post = nn.LayerNorm(_WIDTH), nn.LayerNorm(_WIDTH)
        self.transformer = _Transformer(2, activation)
        self.proj = nn.Parameter(torch.randn(_WIDTH, _EMBED_DIM) * 0.2)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Return the projected state of the class token."""
        patches = self.conv1(pixel_values).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_embedding.expand(len(patches), 1, -1), patches], 1) + self.positional_embedding
        return cast(Tensor, self.ln_post(self.transformer(self.ln_pre(x))[:, 0]) @ self.proj)


class OpenClip(nn.Module):
    """CLIP as open_clip writes it, with its names."""

    def __init__(self, vocab_size: int, *, quick_gelu: bool, image_size: int = 32) -> None:
        super().__init__()
        torch.manual_seed(7)
        activation = QuickGELU() if quick_gelu else nn.GELU()
        self.positional_embedding = nn.Parameter(torch.randn(_CONTEXT, _WIDTH) * 0.3)
        self.text_projection = nn.Parameter(torch.randn(_WIDTH, _EMBED_DIM) * 0.2)
        self.logit_scale = nn.Parameter(torch.tensor(1.4))
        self.visual = _Visual(image_size, 8, activation)
        self.transformer = _Transformer(2, activation)
        self.token_embedding = nn.Embedding(vocab_size, _WIDTH)
        self.ln_final = nn.LayerNorm(_WIDTH)
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if "ln_" in name or name.endswith("bias"):
                    parameter.add_(torch.randn_like(parameter) * 0.2)

    @torch.no_grad()
    def encode_text(self, ids: Tensor) -> Tensor:
        """Embed texts: the feature of the largest id, which is the end token."""
        x = self.token_embedding(ids) + self.positional_embedding[: ids.shape[1]]
        mask = torch.full((ids.shape[1], ids.shape[1]), -torch.inf).triu(1)
        x = self.ln_final(self.transformer(x, mask))
        ends = x[torch.arange(len(x)), ids.argmax(1)] @ self.text_projection
        return functional.normalize(ends, dim=-1)

    @torch.no_grad()
    def encode_image(self, pixel_values: Tensor) -> Tensor:
        """Embed normalized images."""
        return functional.normalize(self.visual(pixel_values), dim=-1)


def build_open_clip(folder: Path, *, quick_gelu: bool = True, pickled: bool = False, timm: bool = False) -> OpenClip:
    """Write what a repository of open_clip holds, and return the model.

    Args:
        folder: The folder to write into.
        quick_gelu: Whether the model has OpenAI's activation.
        pickled: Whether the weights are open_clip_pytorch_model.bin, with the buffer that old ones have.
        timm: Whether a config.json of timm lies beside, as in timm's repositories.
    """
    folder.mkdir(parents=True, exist_ok=True)
    vocab_size = len(write_clip_tokenizer(folder))
    model = OpenClip(vocab_size, quick_gelu=quick_gelu).eval()
    vision = {"image_size": 32, "layers": 2, "width": _WIDTH, "head_width": 8, "patch_size": 8, "mlp_ratio": 2.0}
    text = {"context_length": _CONTEXT, "vocab_size": vocab_size, "width": _WIDTH, "heads": _HEADS, "layers": 2}
    settings: dict[str, Any] = {"embed_dim": _EMBED_DIM, "vision_cfg": vision, "text_cfg": text | {"mlp_ratio": 2.0}}
    if quick_gelu:
        settings["quick_gelu"] = True
    config = {"model_cfg": settings, "preprocess_cfg": {"mean": MEAN, "std": STD}}
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=2))
    weights = {name: value.detach().clone() for name, value in model.state_dict().items()}
    if pickled:
        torch.save(weights | {"attn_mask": torch.zeros(2, 2)}, folder / "open_clip_pytorch_model.bin")
    else:
        save_file(weights, folder / "open_clip_model.safetensors")
    if timm:
        (folder / "config.json").write_text(json.dumps({"architecture": "vit_base_patch32_clip_224", "num_classes": 0}))
        save_file({"head.weight": torch.zeros(2, 2)}, folder / "model.safetensors")
    return model

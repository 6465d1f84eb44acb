"""The language models of Qwen2-VL, Qwen2.5-VL and Qwen3-VL as one batchable graph, without ``lm_head``."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from lychee_export.families.attention import mask_scores, see_causally
from lychee_export.families.decoder import take_last, take_rows
from lychee_export.families.qwen_vl.layout import count_patches

__all__ = ["TextEncoder"]


class TextEncoder(nn.Module):
    """Read a prompt with its images.

    Args:
        model: A ``Qwen2VLForConditionalGeneration``, ``Qwen2_5_VLForConditionalGeneration`` or
            ``Qwen3VLForConditionalGeneration``; its parameters are shared, not copied.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        language, vision = model.model.language_model, model.config.vision_config
        self.embed_tokens, self.layers, self.norm = language.embed_tokens, language.layers, language.norm
        self.image_token_id = int(model.config.image_token_id)
        self.merge_size = int(vision.spatial_merge_size)
        self.embedding_dim = int(model.config.text_config.hidden_size)
        self.num_deepstack = len(getattr(vision, "deepstack_visual_indexes", None) or ())
        rotary = language.rotary_emb
        self.rotary_scale = float(rotary.attention_scaling)
        # Plain attributes, not buffers: they stay as they are when the module becomes float16.
        self.inverse_frequencies = rotary.inv_freq.detach().clone()  # (head_dim / 2,)
        self.position_axes = _read_position_axes(rotary)  # (head_dim / 2,)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, image_embeds: Tensor, image_grid_thw: Tensor
    ) -> Tensor:
        """Return the last real token's state after the final norm.

        Args:
            input_ids: See ``read``, as the others.
            attention_mask: int64, (batch_size, sequence_length).
            image_embeds: float32, (batch_size, num_image_tokens, embedding_dim * (1 + deepstack layers)).
            image_grid_thw: int64, (batch_size, max_images, 3).

        Returns:
            float32, (batch_size, embedding_dim).
        """
        states = self.read(input_ids, attention_mask, image_embeds, image_grid_thw)
        return cast(Tensor, self.norm(take_last(states, attention_mask))).float()

    def read(self, input_ids: Tensor, attention_mask: Tensor, image_embeds: Tensor, image_grid_thw: Tensor) -> Tensor:
        """Return all tokens' states before the final norm.

        Args:
            input_ids: int64, (batch_size, sequence_length), padded left or right.
            attention_mask: int64, (batch_size, sequence_length), 1 for a token and 0 for padding.
            image_embeds: float32, (batch_size, num_image_tokens, embedding_dim * (1 + deepstack layers)); of the
                rows' images in order, what follows is ignored.
            image_grid_thw: int64, (batch_size, max_images, 3); zeros for no image.

        Returns:
            In the weights' dtype, (batch_size, sequence_length, embedding_dim).
        """
        valid = attention_mask > 0
        is_image = (input_ids == self.image_token_id) & valid
        image_index = is_image.to(torch.int64).cumsum(1) - is_image.to(torch.int64)  # image tokens before this one
        images = take_rows(image_embeds, image_index.clamp(max=image_embeds.shape[1] - 1))
        x = self.embed_tokens(input_ids)
        x = torch.where(is_image[..., None], images[..., : self.embedding_dim].to(x.dtype), x)
        allowed = see_causally(valid)
        rotation = self._rotate(self.locate(is_image, image_index, valid, image_grid_thw))
        given: dict[torch.dtype, tuple[Tensor, tuple[Tensor, ...]]] = {}
        for index, layer in enumerate(self.layers):
            dtype = layer.self_attn.o_proj.weight.dtype
            if dtype not in given:
                given[dtype] = mask_scores(allowed, dtype), tuple(part.to(dtype) for part in rotation)
            mask, angles = given[dtype]
            x = layer(x, attention_mask=mask, position_embeddings=angles)  # (batch_size, sequence_length, ...)
            if index < self.num_deepstack:
                start = self.embedding_dim * (index + 1)
                features = images[..., start : start + self.embedding_dim].to(x.dtype)
                x = x + torch.where(is_image[..., None], features, torch.zeros_like(features))
        return cast(Tensor, x)

    def locate(self, is_image: Tensor, image_index: Tensor, valid: Tensor, image_grid_thw: Tensor) -> Tensor:
        """Return time, row and column of every token for the rotary angles.

        Texts advance all three by one per token. An image's tokens share a time and have a row and a column; what
        follows goes on after the image's longer side.

        Args:
            is_image: bool, (batch_size, sequence_length).
            image_index: int64, like ``is_image``: how many image tokens of the row come before.
            valid: bool, like ``is_image``: no padding.
            image_grid_thw: int64, (batch_size, max_images, 3).

        Returns:
            int64, (3, batch_size, sequence_length); zeros for padding.
        """
        starts, ends = (bound[:, None] // self.merge_size**2 for bound in count_patches(image_grid_thw))
        sides = image_grid_thw[:, None, :, 1:] // self.merge_size  # (batch_size, 1, max_images, 2)
        finished = (image_index[..., None] >= ends).to(torch.int64)  # (batch_size, sequence_length, max_images)
        inside = (image_index[..., None] >= starts).to(torch.int64) - finished
        is_text = (valid & ~is_image).to(torch.int64)
        time = is_text.cumsum(1) - is_text + (finished * sides.amax(-1)).sum(-1)
        width = (inside * sides[..., 1]).sum(-1).clamp(min=1)  # (batch_size, sequence_length)
        place = torch.where(is_image, image_index - (inside * starts).sum(-1), 0)
        positions = torch.stack([time, time + place // width, time + place % width])
        return positions * valid.to(torch.int64)

    def _rotate(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return cosine and sine of the rotary angles; float32, (batch_size, sequence_length, head_dim)."""
        axes, frequencies = (values.to(positions.device) for values in (self.position_axes, self.inverse_frequencies))
        angles = positions.permute(1, 2, 0)[..., axes].float() * frequencies
        angles = torch.cat([angles, angles], -1)
        return angles.cos() * self.rotary_scale, angles.sin() * self.rotary_scale


def _read_position_axes(rotary: Any) -> Tensor:
    """Return which of time (0), row (1) and column (2) turns each frequency; int64, (head_dim / 2,).

    Qwen2-VL and Qwen2.5-VL give each a section of the frequencies, Qwen3-VL interleaves them.
    """
    count = rotary.inv_freq.shape[0]
    axes = torch.arange(3.0, device="cpu")[:, None, None, None].repeat(1, 1, 1, count)
    return cast(Tensor, rotary.recomposition_frequencies(axes))[0, 0, :count].to(torch.int64)

"""Rotary positions: the angles by which queries and keys are turned."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["CHANGING_ROPE_TYPES", "rotary_angles"]

CHANGING_ROPE_TYPES = ("dynamic", "longrope")
"""Their frequencies depend on the sequence's length, which the graph does not compute."""


def rotary_angles(input_ids: Tensor, frequencies: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Return cosine and sine of the angles of each place; float32, (1, sequence_length, head_dim).

    Args:
        input_ids: int64, (batch_size, sequence_length); its length counts.
        frequencies: The angle from a place to the next: float32, (head_dim / 2,).
        scale: A factor of both results.
    """
    places = torch.arange(input_ids.shape[1], device=input_ids.device).float()
    angles = places[None, :, None] * frequencies.to(input_ids.device)
    angles = torch.cat([angles, angles], -1)
    return angles.cos() * scale, angles.sin() * scale

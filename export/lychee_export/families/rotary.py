"""Rotary positions: the angles by which queries and keys are turned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lychee_export.errors import CheckpointError

__all__ = ["CHANGING_ROPE_TYPES", "check_rotary", "rotary_angles"]

CHANGING_ROPE_TYPES = ("dynamic", "longrope")
"""Their frequencies depend on the sequence's length, which the graph does not compute."""


def check_rotary(config: Mapping[str, Any], place: str) -> None:
    """Refuse rotary positions that are not computed here.

    Args:
        config: The content of config.json.
        place: Its path, named in messages.

    Raises:
        CheckpointError: They depend on the sequence's length.
    """
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    types = {part.get("rope_type") for part in (rope, *rope.values()) if isinstance(part, dict)}
    if types & set(CHANGING_ROPE_TYPES):
        raise CheckpointError(
            f"{place}: rotary positions of the types {sorted(filter(None, types))}; "
            f"{' and '.join(CHANGING_ROPE_TYPES)} are not supported"
        )


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

"""Random weights that are large enough for errors to show."""

from __future__ import annotations

import torch
from torch import nn


def randomize(model: nn.Module, seed: int = 0, gain: float = 1.0) -> None:
    """Draw every tensor of a model anew, but for its scalars.

    Args:
        model: Changed in place.
        seed: Equal seeds give equal weights.
        gain: Factor of the matrices: larger ones make outputs depend more on the inputs.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in sorted(model.named_parameters()):
            noise = torch.randn(tensor.shape, generator=generator)
            if tensor.ndim >= 2:
                tensor.copy_(gain * noise * _scale(name, tensor))
            elif tensor.numel() > 1:
                tensor.copy_(0.2 * noise + float("norm" in name.lower() and name.endswith("weight")))


def _scale(name: str, tensor: torch.Tensor) -> float:
    """Return a standard deviation that keeps the size of activations; positions weigh less than tokens."""
    if "position" in name:
        return 0.3
    if "embedding" in name and tensor.ndim == 2:
        return 1.0
    return float(tensor[0].numel() ** -0.5)

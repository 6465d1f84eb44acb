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


def draw_weights(shapes: dict[str, tuple[int, ...]], seed: int, gain: float = 1.0) -> dict[str, torch.Tensor]:
    """Draw tensors by their names and shapes, where no class of transformers has such names.

    Args:
        shapes: By name. Scales of layer norms have names that end with ``_ln.weight`` or hold "norm".
        seed: Equal seeds give equal weights.
        gain: Factor of the matrices.
    """
    model = nn.Module()
    for name, shape in shapes.items():
        # A module's parameters have no dots in their names; randomize() looks at names for the scale alone.
        model.register_parameter(name.replace(".", "/"), nn.Parameter(torch.empty(shape)))
    randomize(model, seed, gain)
    weights = {name.replace("/", "."): value.detach() for name, value in model.named_parameters()}
    for name in weights:
        if name.endswith("_ln.weight"):  # which randomize() does not take for norms
            weights[name] = weights[name] + 1
    return weights


def linear_shapes(name: str, rows: int, columns: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a linear layer with a bias."""
    return {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}


def norm_shapes(name: str, width: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a layer norm."""
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}

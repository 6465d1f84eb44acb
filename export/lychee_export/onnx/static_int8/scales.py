"""Which numbers stand for activations and weights, and which products stay in float32."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lychee_export.onnx.static_int8.activations import Activations
from lychee_export.onnx.static_int8.products import Array, Product

__all__ = ["MAX_ERROR", "WEIGHT_LIMIT", "InputScale", "choose_input_scale", "measure_error", "quantize_weight"]

WEIGHT_LIMIT = 63
"""Largest weight. A CPU without VNNI adds pairs of products of unsigned 8-bit and signed 8-bit numbers in 16 bits: with
weights up to 127 such a sum overflows and is clipped, and one file would give different scores on different CPUs."""

MAX_ERROR = 0.03
"""A product stays in float32 where 8 bits move its output by more than this, root mean square to root mean square."""

_CLIPS = (1.0, 0.8, 0.6, 0.45, 0.3)
"""Shares of the range that are tried: values beyond are clipped, those within get finer steps."""
_LEVELS = 255
_SMALLEST = 1e-6


@dataclass(frozen=True)
class InputScale:
    """How a tensor becomes unsigned 8-bit: round(value / smoothing / scale) + zero_point.

    Args:
        scale: The scale, above 0.
        zero_point: The 8-bit number that stands for 0, from 0 to 255.
        smoothing: The factors by which each channel is divided, and the weights' rows are multiplied, float32,
            (channels,). None leaves both as they are.
    """

    scale: float
    zero_point: int
    smoothing: Array | None = None

    def round_trip(self, activations: Array) -> Array:
        """Return what 8 bits leave of the values, in the smoothed scale."""
        values = activations if self.smoothing is None else activations / self.smoothing
        steps = np.clip(np.rint(values / self.scale) + self.zero_point, 0, _LEVELS)
        return np.asarray((steps - self.zero_point) * self.scale, np.float32)

    def smooth_weight(self, product: Product) -> Array:
        """Return the weights that give the product of the smoothed activations."""
        if self.smoothing is None or product.input_axis is None:
            return product.weight
        return product.weight * np.expand_dims(self.smoothing, 1 - product.input_axis)


def choose_input_scale(activations: Activations, products: Sequence[Product]) -> InputScale:
    """Choose the scale with which the products of one tensor keep their outputs best."""
    candidates = list(_candidates(activations, products))
    errors = [sum(measure_error(activations, product, scale) ** 2 for product in products) for scale in candidates]
    return candidates[int(np.argmin(errors))]


def measure_error(activations: Activations, product: Product, scale: InputScale) -> float:
    """Return the error of a product's output, its root mean square as a share of the output's own."""
    exact = product.compute(activations.kept, product.weight)
    quantized, scales = quantize_weight(scale.smooth_weight(product), product.output_axis)
    weight = quantized.astype(np.float32) * _along(scales, product.output_axis, quantized.ndim)
    error = product.compute(scale.round_trip(activations.kept), weight) - exact
    return float(np.sqrt(np.mean(error**2) / max(float(np.mean(exact**2)), _SMALLEST**2)))


def quantize_weight(weight: Array, output_axis: int) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.int8]], Array]:
    """Quantize weights symmetrically, with one scale for each output channel.

    Returns:
        int8, of the weight's shape, from -WEIGHT_LIMIT to WEIGHT_LIMIT; and the scales, float32, (outputs,).
    """
    axes = tuple(axis for axis in range(weight.ndim) if axis != output_axis)
    scales = np.maximum(np.abs(weight).max(axes), _SMALLEST) / WEIGHT_LIMIT
    steps = np.rint(weight / _along(scales, output_axis, weight.ndim))
    return steps.astype(np.int8), scales.astype(np.float32)


def _candidates(activations: Activations, products: Sequence[Product]) -> Iterator[InputScale]:
    smoothings: list[Array | None] = [None]
    if all(product.input_axis is not None for product in products):
        smoothings.append(_smoothing(activations, products))
    for smoothing in smoothings:
        divisor = 1.0 if smoothing is None else smoothing
        low = min(float((activations.minimum / divisor).min()), 0.0)
        high = max(float((activations.maximum / divisor).max()), 0.0)
        for clip in _CLIPS:
            # the shorter side keeps its length until the longer one is as short: outliers lie on one side
            reach = clip * max(-low, high, _SMALLEST)
            bottom, top = max(low, -reach), min(high, reach)
            scale = (top - bottom) / _LEVELS
            yield InputScale(scale, round(-bottom / scale), smoothing)


def _smoothing(activations: Activations, products: Sequence[Product]) -> Array:
    """Share the range of a channel between activations and weights, as SmoothQuant does with an exponent of 0.5.

    Source: Xiao et al., SmoothQuant, 2023, equation 4.
    """
    reach = np.maximum(np.maximum(np.abs(activations.minimum), np.abs(activations.maximum)), _SMALLEST)
    rows = [np.abs(product.weight).max(product.output_axis) for product in products]
    smoothing = np.sqrt(reach / np.maximum(np.max(rows, 0), _SMALLEST))
    return np.asarray(smoothing / np.exp(np.log(smoothing).mean()), np.float32)


def _along(values: Array, axis: int, dimensions: int) -> Array:
    return values.reshape([-1 if index == axis else 1 for index in range(dimensions)])

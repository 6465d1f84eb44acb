"""Rewrite a graph: products of 8-bit numbers where they keep the output, float32 everywhere else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnx_ir import external_data

from lychee_export.contract.signature import Tensors
from lychee_export.errors import ValidationError
from lychee_export.onnx.model_file import EXTERNAL_DATA_BYTES, read_graph, write_model
from lychee_export.onnx.static_int8.activations import record_activations
from lychee_export.onnx.static_int8.products import Product, find_products
from lychee_export.onnx.static_int8.scales import (
    MAX_ERROR,
    InputScale,
    choose_input_scale,
    measure_error,
    quantize_weight,
)

__all__ = ["StaticReport", "quantize_static", "write_static_int8"]


@dataclass(frozen=True)
class StaticReport:
    """What became of the products.

    Args:
        products: How many products there are.
        errors: The error of the output of each product that may compute in 8 bits, as a share of the output, by name of
            the node.
        kept: The names of all products that stay in float32.
    """

    products: int
    errors: dict[str, float]
    kept: tuple[str, ...]


def quantize_static(
    source: Path, samples: Sequence[Tensors], max_error: float = MAX_ERROR
) -> tuple[onnx.ModelProto, StaticReport]:
    """Quantize every product of activations with constant weights that keeps its output.

    Scales are constants, so that a row does not depend on its batch. In float32 stay: softmax, normalizations,
    embeddings, products of two activations, and all sums; the convolution that reads the pixels; what reads one row
    for each text or image, as the projection after pooling does: it is little work, and no later layer averages its
    error out; and a product whose output 8 bits would move by more than ``max_error``.

    Args:
        source: The float32 model; it is not changed.
        samples: The inputs as they are served, from which ranges are taken.
        max_error: The largest accepted error of a product's output, as a share of the output.

    Returns:
        The model, and what became of its products.

    Raises:
        ValidationError: There is no product, or none keeps its output.
    """
    model = read_graph(source)
    products = list(find_products(model, source.parent))
    if not products:
        raise ValidationError(f"{source} has no matrix product with constant weights: there is nothing to quantize")
    by_input: dict[str, list[Product]] = {}
    for product in products:
        by_input.setdefault(product.node.input[0], []).append(product)
    axes = {name: group[0].channel_axis for name, group in by_input.items()}
    activations = record_activations(source, axes, samples, np.random.default_rng(0))
    first = products[0] if products[0].node.op_type == "Conv" else None
    errors: dict[str, float] = {}
    rewriting = _Rewriting(model)
    for name, group in by_input.items():
        group = [product for product in group if product is not first and not activations[name].pooled]
        if group:
            scale = choose_input_scale(activations[name], group)
            errors |= {product.name: measure_error(activations[name], product, scale) for product in group}
            rewriting.quantize(name, [product for product in group if errors[product.name] <= max_error], scale)
    kept = tuple(product.name for product in products if not errors.get(product.name, np.inf) <= max_error)
    if len(kept) == len(products):
        raise ValidationError(
            f"8 bits move the output of each of the {len(products)} products by more than {max_error:g} of it. Choose "
            "--precision w8 or fp32"
        )
    return rewriting.finish(), StaticReport(len(products), errors, kept)


def write_static_int8(source: Path, target: Path, samples: Sequence[Tensors]) -> StaticReport:
    """Quantize a file, as `quantize_static` does, into another one; many weights go into a file of their own.

    Args:
        source: The float32 model; it is not changed.
        target: The path where the quantized model goes.
        samples: The inputs as they are served.
    """
    quantized, report = quantize_static(source, samples)
    model = onnx_ir.from_proto(quantized)
    external_data.set_base_dir(model.graph, source.parent)  # of the weights that stay as they are
    write_model(model, target, EXTERNAL_DATA_BYTES)
    return report


class _Rewriting:
    """A graph in which products are replaced, one tensor after the other."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = model
        self._before: dict[str, list[onnx.NodeProto]] = {}

    def quantize(self, name: str, products: Sequence[Product], scale: InputScale) -> None:
        """Let products read 8-bit activations and 8-bit weights.

        Args:
            name: The name of the tensor that the products read.
            products: The products that read it; there may be none.
            scale: The way in which the tensor becomes 8-bit numbers.
        """
        if not products:
            return
        nodes = []
        activations = name
        if scale.smoothing is not None:
            factor = self._add(f"{name}_smoothing", 1 / scale.smoothing)
            activations = f"{name}_smoothed"
            nodes.append(helper.make_node("Mul", [name, factor], [activations], name=activations))
        scales = [
            self._add(f"{name}_scale", np.float32(scale.scale)),
            self._add(f"{name}_zero_point", np.uint8(scale.zero_point)),
        ]
        nodes += _round_trip(activations, scales, name)
        for product in products:
            weight, weight_scales = quantize_weight(scale.smooth_weight(product), product.output_axis)
            prefix = f"{product.name}_weight"
            constants = [
                self._add(f"{prefix}_quantized", weight),
                self._add(f"{prefix}_scale", weight_scales),
                self._add(f"{prefix}_zero_point", np.zeros(len(weight_scales), np.int8)),
            ]
            nodes.append(
                helper.make_node("DequantizeLinear", constants, [prefix], name=prefix, axis=product.output_axis)
            )
            product.node.input[0], product.node.input[1] = f"{name}_dequantized", prefix
        self._before[products[0].name] = nodes

    def finish(self) -> onnx.ModelProto:
        """Return the graph, without the weights that nothing reads any more."""
        graph = self._model.graph
        nodes = [node for product in graph.node for node in (*self._before.get(product.name, ()), product)]
        del graph.node[:]
        graph.node.extend(nodes)
        read = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
        constants = [tensor for tensor in graph.initializer if tensor.name in read]
        del graph.initializer[:]
        graph.initializer.extend(constants)
        return self._model

    def _add(self, name: str, value: NDArray[np.generic] | np.generic) -> str:
        self._model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        return name


def _round_trip(activations: str, scales: Sequence[str], name: str) -> list[onnx.NodeProto]:
    quantized, dequantized = f"{name}_quantized", f"{name}_dequantized"
    return [
        helper.make_node("QuantizeLinear", [activations, *scales], [quantized], name=quantized),
        helper.make_node("DequantizeLinear", [quantized, *scales], [dequantized], name=dequantized),
    ]

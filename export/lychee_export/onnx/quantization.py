"""Fewer bits per weight: half floats, or MatMul with constant weights as MatMulNBits; `static_int8` has the rest."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from packaging.version import Version

from lychee_export.errors import CheckpointError

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto

__all__ = [
    "BITS",
    "BLOCK_SIZE",
    "LEAST_RUNTIMES",
    "PRECISIONS",
    "QUANTIZED",
    "Precision",
    "check_runtime",
    "quantize_weights",
]

Precision = Literal["fp32", "fp16", "bf16", "w8", "w4", "s8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

BITS = {"w8": 8, "w4": 4}
"""Bits per weight of the precisions whose weights alone are quantized."""
QUANTIZED = frozenset({*BITS, "s8"})
"""Precisions that are made from the float32 file."""
LEAST_RUNTIMES: dict[Precision, str] = {"w8": "1.22"}
"""MatMulNBits of 8 bits came with this version of ONNX Runtime, that of 4 bits is older than that."""
BLOCK_SIZE = 32
_ACCURACY_LEVEL = 4
"""Activations are quantized to int8 within a block of a row, so that a row does not depend on its batch."""


def check_runtime(precision: Precision, progress: Callable[[str], None]) -> None:
    """Say what ONNX Runtime a precision needs where it is served, and which one is installed here.

    Raises:
        CheckpointError: The installed one is too old to check the export.
    """
    needed = LEAST_RUNTIMES.get(precision)
    if needed is None:
        return
    import onnxruntime

    installed = str(onnxruntime.__version__)
    said = f"precision {precision} needs ONNX Runtime {needed} or later where it is served, and {installed} is here"
    if Version(installed) < Version(needed):
        raise CheckpointError(f"{said}: install a newer one, or choose --precision w4")
    progress(said)


def quantize_weights(source: Path, target: Path, precision: Precision, external_data_bytes: int | None = None) -> None:
    """Quantize the weights of all matrix products, symmetric, in blocks of 32 along the input dimension.

    Dynamic int8 quantization of whole tensors is not offered: it makes a pair's score depend on its batch.

    Args:
        source: The float32 model; it is not changed.
        target: The path where the quantized model goes.
        precision: "w8" or "w4": bits per weight.
        external_data_bytes: The size above which weights go into a file of their own beside the model, in bytes. None
            takes the default.
    """
    import onnx_ir
    from onnx_ir import external_data
    from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

    from lychee_export.onnx.model_file import EXTERNAL_DATA_BYTES, read_graph, write_model

    logging.getLogger().setLevel(logging.WARNING)  # importing the quantizer turns on everybody's INFO lines
    config = DefaultWeightOnlyQuantConfig(
        block_size=BLOCK_SIZE, is_symmetric=True, accuracy_level=_ACCURACY_LEVEL, bits=BITS[precision]
    )
    quantizer = MatMulNBitsQuantizer(read_graph(source), algo_config=config)
    quantizer.node_quantizer = _OneByOne(quantizer.node_quantizer, quantizer.model.model.graph, source.parent)
    quantizer.process()
    model = onnx_ir.from_proto(quantizer.model.model)
    external_data.set_base_dir(model.graph, source.parent)  # of the weights that stay as they are
    write_model(model, target, EXTERNAL_DATA_BYTES if external_data_bytes is None else external_data_bytes)


class _OneByOne:
    """Read the weight of one matrix product after the other, if they lie in a file of their own.

    Args:
        quantizer: ONNX Runtime's quantizer of single nodes; it looks for a node's weight in the graph that it is given.
        graph: The model's graph.
        folder: The folder that holds the file of weights.
    """

    def __init__(self, quantizer: Any, graph: GraphProto, folder: Path) -> None:
        self._quantizer = quantizer
        self._weights = {tensor.name: tensor for tensor in graph.initializer}
        self._folder = folder

    def quantize(self, node: NodeProto, graphs: list[GraphProto]) -> list[NodeProto]:
        """Return what stands for the node, and add its quantized weight to the innermost graph."""
        from onnx import GraphProto, TensorProto
        from onnx.external_data_helper import load_external_data_for_tensor, uses_external_data

        weight = self._weights.get(node.input[1]) if len(node.input) > 1 else None
        nodes: list[NodeProto]
        if weight is None or not uses_external_data(weight):
            nodes = self._quantizer.quantize(node, graphs)
            return nodes
        alone = GraphProto(initializer=[weight])  # protobuf frees memory with the whole message, never a part of it
        load_external_data_for_tensor(alone.initializer[0], str(self._folder))
        alone.initializer[0].data_location = TensorProto.DEFAULT
        del alone.initializer[0].external_data[:]
        nodes = self._quantizer.quantize(node, [alone])
        graphs[-1].initializer.extend(alone.initializer[1:])
        return nodes

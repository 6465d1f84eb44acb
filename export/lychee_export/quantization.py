"""Fewer bits per weight: MatMul with constant weights becomes MatMulNBits."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    import onnx

__all__ = ["PRECISIONS", "Precision", "quantize_weights"]

Precision = Literal["fp32", "w8", "w4"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

_BITS = {"w8": 8, "w4": 4}
_BLOCK_SIZE = 32
_ACCURACY_LEVEL = 4
"""Activations are quantized to int8 within a block of a row, so that a row does not depend on its batch."""


def quantize_weights(model: onnx.ModelProto, precision: Precision) -> onnx.ModelProto:
    """Quantize the weights of all matrix products, symmetric, in blocks of 32 along the input dimension.

    Dynamic int8 quantization of whole tensors is not offered: it makes a pair's score depend on its batch.

    Args:
        model: A float32 model; not changed.
        precision: "fp32" returns the model as it is; "w8" and "w4" keep 8 or 4 bits per weight.
    """
    if precision == "fp32":
        return model
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

    logging.getLogger().setLevel(logging.WARNING)  # importing the quantizer turns on everybody's INFO lines
    config = DefaultWeightOnlyQuantConfig(
        block_size=_BLOCK_SIZE, is_symmetric=True, accuracy_level=_ACCURACY_LEVEL, bits=_BITS[precision]
    )
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    quantizer = MatMulNBitsQuantizer(copy, algo_config=config)
    quantizer.process()
    quantized: onnx.ModelProto = quantizer.model.model
    return quantized

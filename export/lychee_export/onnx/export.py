"""Torch module to ONNX model."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
import torch

from lychee_export.checkpoint.stored_weights import stand_ins
from lychee_export.contract.signature import BATCH_AXIS, Axis, ModelSignature, TensorSpec
from lychee_export.errors import ValidationError
from lychee_export.families import Piece
from lychee_export.onnx.bfloat16 import widen_operators
from lychee_export.onnx.byte_inputs import take_shapes_after_casts
from lychee_export.onnx.late_weights import read_weights_late
from lychee_export.onnx.model_file import EXTERNAL_DATA_BYTES, read_graph, write_model
from lychee_export.onnx.row_checks import CheckedRows

__all__ = ["OPSET_VERSION", "export_onnx"]

OPSET_VERSION = 18
"""Loads in every ONNX Runtime from 1.18 on; 22 needs 1.22 and 23 needs 1.23."""

_SAMPLE_ROWS = 3


def export_onnx(piece: Piece, path: Path, external_data_bytes: int = EXTERNAL_DATA_BYTES) -> None:
    """Export a module with the names and axes of its signature, and with the checks of `CheckedRows`.

    The file depends on the weights and the versions of torch and onnxscript alone: the exporter's notes about
    the machine (paths in stack traces) are removed.

    Args:
        piece: The piece to export, in float32 or half floats.
        path: The path where ``model.onnx`` goes.
        external_data_bytes: The size above which weights go into a file of their own beside the model, in bytes.

    Raises:
        ValidationError: torch cannot export the module.
    """
    signature = piece.signature
    module = CheckedRows(piece.module, signature).eval()
    inputs = piece.sample_inputs(np.random.default_rng(0), _SAMPLE_ROWS)
    axes: dict[str, object] = {BATCH_AXIS: torch.export.Dim(BATCH_AXIS)}
    for spec in signature.inputs:
        for size in spec.shape:
            if isinstance(size, Axis):
                axes.setdefault(size.name, _dimension(size))
    try:
        with _quiet(), stand_ins(module) as weights:
            program = torch.onnx.export(
                module,
                tuple(torch.from_numpy(inputs[spec.name]) for spec in signature.inputs),
                dynamo=True,
                opset_version=OPSET_VERSION,
                input_names=[spec.name for spec in signature.inputs],
                output_names=[spec.name for spec in signature.outputs],
                dynamic_shapes=(tuple(_dynamic_axes(spec, axes) for spec in signature.inputs),),
                external_data=True,
                optimize=False,  # it reads weights, which come first
            )
            assert program is not None
            read_weights_late(program.model, weights)
            program.optimize()
    except torch.onnx.OnnxExporterError as error:
        raise ValidationError(f"{signature.name}: torch cannot export the module: {error}") from error
    write_model(program.model, path, external_data_bytes)
    for value in program.model.graph.initializers.values():
        value.const_value = None  # onnxscript's rewrite rules keep the last graph, folded constants included
    model = read_graph(path)
    _anonymize(model)
    _name_axes(model, signature)
    take_shapes_after_casts(model)
    if any(tensor.data_type == onnx.TensorProto.BFLOAT16 for tensor in model.graph.initializer):
        widen_operators(model)
    path.write_bytes(model.SerializeToString(deterministic=True))


def _dimension(axis: Axis) -> object:
    """Make torch's symbol for an axis; one with a multiple is that multiple of a symbol."""
    if axis.multiple == 1:
        return torch.export.Dim(axis.name, max=axis.maximum)
    return axis.multiple * torch.export.Dim(f"{axis.name}_units", max=axis.maximum // axis.multiple)


def _dynamic_axes(spec: TensorSpec, axes: Mapping[str, object]) -> dict[int, object]:
    variable = {1 + index: axes[size.name] for index, size in enumerate(spec.shape) if isinstance(size, Axis)}
    return {0: axes[BATCH_AXIS], **variable}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's progress lines and its hints about absent packages off the terminal."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _anonymize(model: onnx.ModelProto) -> None:
    model.doc_string = ""
    model.producer_version = torch.__version__.split("+")[0]
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    for part in (
        model.graph.input,
        model.graph.output,
        model.graph.value_info,
        model.graph.initializer,
        model.graph.node,
    ):
        for element in part:
            element.doc_string = ""
            del element.metadata_props[:]


def _name_axes(model: onnx.ModelProto, signature: ModelSignature) -> None:
    """Give symbolic dimensions the signature's names: torch calls a derived one by its formula.

    A dimension that is fixed where the signature has an axis stays, and breaches the contract.
    """
    names: dict[str, str] = {}
    for values, specs in ((model.graph.input, signature.inputs), (model.graph.output, signature.outputs)):
        for value, spec in zip(values, specs, strict=True):
            dims = list(value.type.tensor_type.shape.dim)[1:]
            for dim, size in zip(dims, spec.shape, strict=False):
                if isinstance(size, Axis) and dim.dim_param:
                    names.setdefault(dim.dim_param, size.name)
                    dim.dim_param = size.name
    for value in model.graph.value_info:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in names:
                dim.dim_param = names[dim.dim_param]

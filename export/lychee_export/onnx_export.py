"""Torch module to ONNX model."""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import warnings
from collections.abc import Iterator, Mapping

import numpy as np
import onnx
import torch

from .families import Piece
from .signature import BATCH_AXIS, Axis, TensorSpec

__all__ = ["OPSET_VERSION", "export_onnx"]

OPSET_VERSION = 18
"""Loads in every ONNX Runtime from 1.18 on; 22 needs 1.22 and 23 needs 1.23."""

_SAMPLE_ROWS = 3


def export_onnx(piece: Piece) -> onnx.ModelProto:
    """Export a module with the names and axes of its signature.

    The result depends on the weights and the versions of torch and onnxscript alone: the exporter's notes about
    the machine (paths in stack traces) are removed.
    """
    signature = piece.signature
    inputs = piece.sample_inputs(np.random.default_rng(0), _SAMPLE_ROWS)
    axes = {BATCH_AXIS: torch.export.Dim(BATCH_AXIS)}
    for spec in signature.inputs:
        for size in spec.shape:
            if isinstance(size, Axis):
                axes.setdefault(size.name, torch.export.Dim(size.name, max=size.maximum))
    with _quiet():
        program = torch.onnx.export(
            piece.module,
            tuple(torch.from_numpy(inputs[spec.name]) for spec in signature.inputs),
            dynamo=True,
            opset_version=OPSET_VERSION,
            input_names=[spec.name for spec in signature.inputs],
            output_names=[spec.name for spec in signature.outputs],
            dynamic_shapes=_nest([_dynamic_axes(spec, axes) for spec in signature.inputs], piece),
            external_data=False,
        )
    assert program is not None
    model: onnx.ModelProto = program.model_proto
    _anonymize(model)
    return model


def _dynamic_axes(spec: TensorSpec, axes: Mapping[str, object]) -> dict[int, object]:
    variable = {1 + index: axes[size.name] for index, size in enumerate(spec.shape) if isinstance(size, Axis)}
    return {0: axes[BATCH_AXIS], **variable}


def _nest(dynamic_shapes: list[dict[int, object]], piece: Piece) -> tuple[object, ...]:
    """Give the shapes the nesting of ``forward``'s parameters: one tuple for ``*args``."""
    parameters = list(inspect.signature(piece.module.forward).parameters.values())
    if parameters[-1].kind is inspect.Parameter.VAR_POSITIONAL:
        fixed = len(parameters) - 1
        return (*dynamic_shapes[:fixed], tuple(dynamic_shapes[fixed:]))
    return tuple(dynamic_shapes)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's progress lines and its hints about absent packages off the terminal."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
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

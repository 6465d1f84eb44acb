"""ONNX Runtime sessions on the plain CPU provider, in float32 on every machine."""

from __future__ import annotations

from pathlib import Path

import onnxruntime
from onnx import TensorProto

from lychee_export.contract.signature import ModelSignature, Tensors
from lychee_export.onnx.model_file import read_graph

__all__ = ["open_session", "run_model"]


def open_session(path: Path) -> onnxruntime.InferenceSession:
    """Open a model file as every server can run it; faster ways are chosen where it is served."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if _holds_half_floats(path):  # a CPU converts them to float32, and would keep a second, packed copy of those
        options.add_session_config_entry("session.disable_prepacking", "1")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _holds_half_floats(path: Path) -> bool:
    return any(tensor.data_type == TensorProto.FLOAT16 for tensor in read_graph(path).graph.initializer)


def run_model(session: onnxruntime.InferenceSession, signature: ModelSignature, tensors: Tensors) -> Tensors:
    """Run one model on those of the tensors that it takes."""
    outputs = session.run(
        [spec.name for spec in signature.outputs], {spec.name: tensors[spec.name] for spec in signature.inputs}
    )
    return dict(zip((spec.name for spec in signature.outputs), outputs, strict=True))

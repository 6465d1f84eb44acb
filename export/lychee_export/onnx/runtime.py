"""ONNX Runtime sessions on the plain CPU provider, in float32 on every machine."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as NoKernelError

from lychee_export.contract.signature import ModelSignature, Tensors
from lychee_export.onnx.model_file import DATA_FILENAME, read_graph

__all__ = ["open_session", "run_model"]

_PROVIDERS = ("CPUExecutionProvider",)


def open_session(path: Path) -> onnxruntime.InferenceSession:
    """Open a model file as every server can run it; faster ways are chosen where it is served.

    A file in bfloat16, for which a CPU has no kernels, is read as it is, types included, and then computed in float32.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    model = read_graph(path)
    types = {tensor.data_type for tensor in model.graph.initializer}
    if _copies_when_packed(model, types, path):
        options.add_session_config_entry("session.disable_prepacking", "1")
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=_PROVIDERS)
    except NoKernelError:  # the last that can go wrong: names, types and shapes are right
        if TensorProto.BFLOAT16 not in types:
            raise
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(path.parent))
    _widen(model)
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=_PROVIDERS)


def _copies_when_packed(model: onnx.ModelProto, types: set[int], path: Path) -> bool:
    """Tell whether packing would take as much memory as the weights.

    Those in a file of their own are read through its mapping otherwise, and half floats, which a CPU converts to
    float32, exist once. Products of quantized weights are packed: else they are computed in another way than served.
    """
    if any(node.op_type == "MatMulNBits" for node in model.graph.node):
        return False
    return (path.parent / DATA_FILENAME).exists() or bool(types & {TensorProto.FLOAT16, TensorProto.BFLOAT16})


def _widen(model: onnx.ModelProto) -> None:
    """Let a graph in bfloat16 compute in float32, with the same weights."""
    graph = model.graph
    del graph.value_info[:]  # types of the past
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.i == TensorProto.BFLOAT16:
                attribute.i = TensorProto.FLOAT
            elif attribute.t.data_type == TensorProto.BFLOAT16:
                values = numpy_helper.to_array(attribute.t).astype("float32")
                attribute.t.CopyFrom(numpy_helper.from_array(values))
    casts = []
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.BFLOAT16:
            wide, tensor.name = tensor.name, f"{tensor.name}_bfloat16"
            casts.append(helper.make_node("Cast", [tensor.name], [wide], to=TensorProto.FLOAT))
    for place, cast in enumerate(casts):
        graph.node.insert(place, cast)


def run_model(session: onnxruntime.InferenceSession, signature: ModelSignature, tensors: Tensors) -> Tensors:
    """Run one model on those of the tensors that it takes."""
    outputs = session.run(
        [spec.name for spec in signature.outputs], {spec.name: tensors[spec.name] for spec in signature.inputs}
    )
    return dict(zip((spec.name for spec in signature.outputs), outputs, strict=True))

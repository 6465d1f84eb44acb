"""ONNX Runtime sessions as the server opens them, and ensembles run in process."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import onnxruntime
from onnx import TensorProto

from .model_file import read_graph
from .signature import ModelSignature, Tensors

__all__ = ["ACCELERATOR_PRECISION", "Provider", "open_session", "run_ensemble", "run_model"]

Provider = Literal["cpu", "openvino"]

ACCELERATOR_PRECISION = "bf16"
"""Inference precision asked of the openvino accelerator; a CPU without bfloat16 computes in float32."""


def open_session(path: Path, provider: Provider) -> onnxruntime.InferenceSession:
    """Open a model file on the plain CPU provider or on the OpenVINO accelerator.

    Raises:
        RuntimeError: ONNX Runtime could not use the accelerator.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if provider == "cpu":
        if _holds_half_floats(path):  # a CPU converts them to float32, and would keep a second, packed copy of those
            options.add_session_config_entry("session.disable_prepacking", "1")
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    device = {"INFERENCE_PRECISION_HINT": ACCELERATOR_PRECISION, "PERFORMANCE_HINT": "LATENCY"}
    session = onnxruntime.InferenceSession(
        str(path),
        options,
        providers=[("OpenVINOExecutionProvider", {"device_type": "CPU", "load_config": json.dumps({"CPU": device})})],
    )
    if session.get_providers()[0] != "OpenVINOExecutionProvider":
        raise RuntimeError(f"ONNX Runtime did not use OpenVINO; it chose {session.get_providers()}")
    return session


def _holds_half_floats(path: Path) -> bool:
    return any(tensor.data_type == TensorProto.FLOAT16 for tensor in read_graph(path).graph.initializer)


def run_model(session: onnxruntime.InferenceSession, signature: ModelSignature, tensors: Tensors) -> Tensors:
    """Run one model on those of the tensors that it takes."""
    outputs = session.run(
        [spec.name for spec in signature.outputs], {spec.name: tensors[spec.name] for spec in signature.inputs}
    )
    return dict(zip((spec.name for spec in signature.outputs), outputs, strict=True))


def run_ensemble(
    sessions: Mapping[str, onnxruntime.InferenceSession], ensemble: ModelSignature, rows: Tensors
) -> Tensors:
    """Run an ensemble's models in order, tensors handed on by name, and return its outputs."""
    tensors = dict(rows)
    for step in ensemble.steps:
        tensors |= run_model(sessions[step.name], step, tensors)
    return {spec.name: tensors[spec.name] for spec in ensemble.outputs}

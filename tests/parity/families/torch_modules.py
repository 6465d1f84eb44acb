"""The exporter's modules, run by the names of their tensors."""

from __future__ import annotations

import torch
from lychee_export.contract.signature import ModelSignature, Tensors


def run_module(module: torch.nn.Module, signature: ModelSignature, tensors: Tensors) -> Tensors:
    """Run a torch module."""
    with torch.no_grad():
        outputs = module(*(torch.from_numpy(tensors[spec.name]) for spec in signature.inputs))
    outputs = (outputs,) if isinstance(outputs, torch.Tensor) else outputs
    return {spec.name: value.numpy() for spec, value in zip(signature.outputs, outputs, strict=True)}

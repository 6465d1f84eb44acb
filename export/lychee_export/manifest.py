"""The manifest: what the client needs to know of an exported model, and how to see that it still is that model."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from .families import Checkpoint, GoldenPair
from .quantization import Precision
from .runtime import Provider
from .validation import Parity

__all__ = ["FORMAT_VERSION", "GOLDEN_TOLERANCE", "build_manifest"]

FORMAT_VERSION = 1
GOLDEN_TOLERANCE = 0.03
"""How far a live server's score of a golden pair may be from the reference's: room for bfloat16 (0.011 in
torch's emulation), none for a swapped model, a changed template or wrong pixels."""

_PACKAGES = ("lychee-rerank-export", "onnx", "onnxruntime-openvino", "onnxscript", "torch", "transformers")


def build_manifest(
    checkpoint: Checkpoint, precision: Precision, parity: Mapping[Provider, Parity], artifacts: Mapping[str, str]
) -> dict[str, Any]:
    """Describe an exported checkpoint.

    Args:
        checkpoint: What was exported.
        precision: The weights' precision.
        parity: Measured differences from the reference, by provider.
        artifacts: SHA-256 in hex by artifact name.

    Returns:
        An object ready for JSON; DESIGN's "client_assets" names its fields.
    """
    return {
        "format_version": FORMAT_VERSION,
        "family": checkpoint.family,
        "pipeline": checkpoint.pipeline,
        "model_id": checkpoint.model_id,
        "revision": checkpoint.revision,
        "precision": precision,
        "created_by": {name: metadata.version(name).split("+")[0] for name in _PACKAGES},
        **checkpoint.preprocessing,
        "max_batch_size": {
            signature.name: signature.max_batch_size
            for signature in (*(piece.signature for piece in checkpoint.pieces), *checkpoint.ensembles)
        },
        "artifacts": dict(artifacts),
        "parity": {provider: dataclasses.asdict(measured) for provider, measured in parity.items()},
        "golden_pairs": {
            "tolerance": GOLDEN_TOLERANCE,
            "pairs": [_golden_pair(pair) for pair in checkpoint.golden_pairs],
        },
    }


def _golden_pair(pair: GoldenPair) -> dict[str, Any]:
    document = {}
    if pair.text is not None:
        document["text"] = pair.text
    if pair.image_png is not None:
        document["image_png_base64"] = base64.b64encode(pair.image_png).decode()
    return {"query": {"text": pair.query}, "document": document, "relevance_score": pair.relevance_score}

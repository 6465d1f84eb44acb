"""The manifest: what the client needs to know of an exported model, and how to see that it still is that model."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from importlib import metadata
from typing import Any

from lychee_client.manifest import EXACT_TOLERANCE, FORMAT_VERSION

from lychee_export.contract.signature import ModelSignature
from lychee_export.families import GoldenPair, ModelCard
from lychee_export.onnx.quantization import Precision

__all__ = ["build_manifest", "created_by", "golden_tolerance"]

_GOLDEN_TOLERANCES = (EXACT_TOLERANCE, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2)
"""How far a live server's score of a golden pair may be from the reference's where every model computes in float32. The
first for weights in float32; for weights of fewer bits the smallest that leaves _ROOM."""
_ROOM = 1.25
"""How much larger than the error that the export itself has shown."""

_PACKAGES = ("lychee-rerank-export", "onnx", "onnxruntime-openvino", "onnxscript", "torch", "transformers")


def build_manifest(
    card: ModelCard,
    models: Iterable[ModelSignature],
    golden_pairs: Iterable[GoldenPair],
    precision: Precision,
    tolerance: float,
    artifacts: Mapping[str, str],
    *,
    flash_attn: bool = False,
) -> dict[str, Any]:
    """Describe an exported checkpoint.

    Args:
        card: The card of what was exported.
        models: The models and ensembles of the export.
        golden_pairs: The pairs with scores of the reference implementation.
        precision: The precision of the weights.
        tolerance: The largest accepted difference of a golden pair's score where every model computes in float32.
        artifacts: The SHA-256 in hex, by artifact name.
        flash_attn: Whether attention is one fused operator: then ONNX Runtime must be the one of ``created_by``.

    Returns:
        An object ready for JSON; docs/explanation/architecture.md says what it is for.
    """
    return {
        "format_version": FORMAT_VERSION,
        "family": card.family,
        "pipeline": card.pipeline,
        "model_id": card.model_id,
        "revision": card.revision,
        "precision": precision,
        "flash_attn": flash_attn,
        "created_by": created_by(),
        **card.preprocessing,
        "max_batch_size": {model.name: model.max_batch_size for model in models},
        "artifacts": dict(artifacts),
        "golden_pairs": {
            "tolerance": tolerance,
            "pairs": [_golden_pair(pair) for pair in golden_pairs],
        },
    }


def golden_tolerance(golden_error: float) -> float:
    """Return how far a live server may be from the reference, for files that are so far from it themselves."""
    return next((limit for limit in _GOLDEN_TOLERANCES if golden_error * _ROOM <= limit), _GOLDEN_TOLERANCES[-1])


def created_by() -> dict[str, str]:
    """Return the versions of everything that an exported file depends on."""
    return {name: metadata.version(name).split("+")[0] for name in _PACKAGES}


def _golden_pair(pair: GoldenPair) -> dict[str, Any]:
    return {
        "query": _part(pair.query, pair.query_image_png),
        "document": _part(pair.text, pair.image_png),
        "relevance_score": pair.relevance_score,
    }


def _part(text: str | None, image_png: bytes | None) -> dict[str, str]:
    part = {} if text is None else {"text": text}
    if image_png is not None:
        part["image_png_base64"] = base64.b64encode(image_png).decode()
    return part

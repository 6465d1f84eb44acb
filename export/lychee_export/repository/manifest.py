"""The manifest: what the client needs to know of an exported model, and how to see that it still is that model."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from importlib import metadata

import msgspec
from lychee_client.manifest import EXACT_TOLERANCE, GoldenPair, GoldenPairs, Manifest
from lychee_client.repository import ASSETS_MODEL
from msgspec import structs

from lychee_export.contract.signature import ModelSignature
from lychee_export.families import ModelCard
from lychee_export.onnx.quantization import Precision

__all__ = ["build_manifest", "created_by", "find_version", "golden_tolerance"]

_GOLDEN_TOLERANCES = (EXACT_TOLERANCE, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2)
"""How far a live server's score of a golden pair may be from the reference's where every model computes in float32. The
first for weights in float32; for weights of fewer bits the smallest that leaves _ROOM."""
_ROOM = 1.25
"""How much larger than the error that the export itself has shown."""

_VERSION_BYTES = 6
"""Fewer than what a number in JSON may have in any language (2**53) and Triton allows (2**63)."""

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
) -> Manifest:
    """Describe an exported checkpoint.

    Args:
        card: The card of what was exported.
        models: The models and ensembles that clients see.
        golden_pairs: The pairs with scores of the reference implementation.
        precision: The precision of the weights.
        tolerance: The largest accepted difference of a golden pair's score where every model computes in float32.
        artifacts: The SHA-256 in hex, by artifact name.
        flash_attn: Whether attention is one fused operator: then ONNX Runtime must be the one of ``created_by``.
    """
    manifest = Manifest(
        **structs.asdict(card.spec),
        precision=precision,
        flash_attn=flash_attn,
        created_by=created_by(),
        max_batch_size={model.name: model.max_batch_size for model in models},
        artifacts=artifacts,
        golden_pairs=GoldenPairs(tolerance, tuple(golden_pairs)),
    )
    return structs.replace(manifest, version=find_version(manifest))


def find_version(manifest: Manifest) -> int:
    """Return the number under which servers have an export, made of all that decides a score or shapes a request.

    What checks the scores does not count, nor what made the files: the reference's numbers differ in their last bits
    from machine to machine.
    """
    files = {name: value for name, value in manifest.artifacts.items() if not name.startswith(f"{ASSETS_MODEL}/")}
    decisive = structs.replace(
        manifest, created_by={}, golden_pairs=GoldenPairs(0.0, ()), artifacts=files, version=None, execution={}
    )
    digest = hashlib.sha256(msgspec.json.encode(decisive, order="deterministic")).digest()
    return int.from_bytes(digest[:_VERSION_BYTES], "big") or 1


def golden_tolerance(golden_error: float) -> float:
    """Return how far a live server may be from the reference, for files that are so far from it themselves."""
    return next((limit for limit in _GOLDEN_TOLERANCES if golden_error * _ROOM <= limit), _GOLDEN_TOLERANCES[-1])


def created_by() -> dict[str, str]:
    """Return the versions of everything that an exported file depends on."""
    return {name: metadata.version(name).split("+")[0] for name in _PACKAGES}

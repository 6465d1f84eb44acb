"""The whole way from a checkpoint to a validated repository."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from .assets import CLIENT_ASSETS, build_client_assets
from .families import Checkpoint, load_checkpoint
from .manifest import build_manifest
from .onnx_export import export_onnx
from .quantization import Precision, quantize_weights
from .repository import ModelFolder, write_models
from .runtime import Provider, open_session
from .signature import ModelSignature
from .triton_config import MODEL_FILENAME, model_config
from .validation import TOLERANCES, Parity, validate_contract, validate_values

__all__ = ["ExportReport", "config_files", "export_checkpoint"]

_PLAIN_CPU_VARIANT = "cpu"
"""Name in ``configs/`` of the configuration for servers without the openvino accelerator."""


@dataclass(frozen=True)
class ExportReport:
    """What an export wrote and measured.

    Args:
        sizes_bytes: Size of each ONNX file by model name.
        parity: Measured differences from the reference, by provider.
        manifest: The manifest.
    """

    sizes_bytes: dict[str, int]
    parity: dict[Provider, Parity]
    manifest: dict[str, Any]


def export_checkpoint(
    checkpoint: str, repository: Path, precision: Precision = "fp32", progress: Callable[[str], None] = lambda _: None
) -> ExportReport:
    """Turn a checkpoint into models of a Triton repository.

    Args:
        checkpoint: Name of a bundled checkpoint or path of a checkpoint folder.
        repository: The model repository; made if absent.
        precision: The weights' precision.
        progress: Called with a line for each step.

    Raises:
        CheckpointError: The checkpoint cannot be read.
        ValidationError: An exported model breaks the contract or differs from the reference.
        RepositoryError: The repository cannot be written.
    """
    progress(f"loading {checkpoint}")
    loaded = load_checkpoint(checkpoint)
    models: dict[str, onnx.ModelProto] = {}
    for piece in loaded.pieces:
        progress(f"exporting {piece.signature.name}")
        model = export_onnx(piece)
        validate_contract(model, piece.signature)
        models[piece.signature.name] = quantize_weights(model, precision) if piece.signature.encoder else model
    parity: dict[Provider, Parity] = {}
    for provider in _providers(precision):
        progress(f"validating on {provider}")
        sessions = {
            piece.signature.name: open_session(
                models[piece.signature.name], provider if piece.signature.encoder else "cpu"
            )
            for piece in loaded.pieces
        }
        parity[provider] = validate_values(loaded, sessions, TOLERANCES[precision, provider])
        del sessions
    progress(f"writing {repository}")
    files = {name: model.SerializeToString(deterministic=True) for name, model in models.items()}
    manifest = build_manifest(loaded, precision, parity, _artifacts(files, loaded))
    manifest_json = json.dumps(manifest, ensure_ascii=False, indent=1)
    assets = build_client_assets(manifest_json, loaded.tokenizer_json)
    validate_contract(assets, CLIENT_ASSETS)
    configs = config_files(loaded, precision)
    contents = {name: {MODEL_FILENAME: content} for name, content in files.items()}
    contents[CLIENT_ASSETS.name] = {
        MODEL_FILENAME: assets.SerializeToString(deterministic=True),
        "manifest.json": manifest_json.encode(),
    }
    write_models(
        repository,
        [ModelFolder(name, *texts, files=contents.get(name, {})) for name, texts in configs.items()],
    )
    return ExportReport({name: len(content) for name, content in files.items()}, parity, manifest)


def config_files(checkpoint: Checkpoint, precision: Precision) -> dict[str, tuple[str, dict[str, str]]]:
    """Write ``config.pbtxt`` and its variants for every model of a checkpoint.

    Returns:
        By model name: the text of ``config.pbtxt``, and the texts of ``configs/`` by variant.
    """
    signatures: list[ModelSignature] = [piece.signature for piece in checkpoint.pieces]
    signatures += [*checkpoint.ensembles, CLIENT_ASSETS]
    accelerated = "openvino" in _providers(precision)
    configs = {}
    for signature in signatures:
        variants = {}
        if signature.encoder and accelerated:
            variants[_PLAIN_CPU_VARIANT] = model_config(signature, accelerated=False)
        configs[signature.name] = (model_config(signature, accelerated=accelerated), variants)
    return configs


def _providers(precision: Precision) -> tuple[Provider, ...]:
    """Name the providers that serve a precision: MatMulNBits exists on the plain CPU provider alone."""
    return ("cpu", "openvino") if precision == "fp32" else ("cpu",)


def _artifacts(files: dict[str, bytes], checkpoint: Checkpoint) -> dict[str, str]:
    artifacts = {f"{name}/{MODEL_FILENAME}": hashlib.sha256(content).hexdigest() for name, content in files.items()}
    artifacts["tokenizer"] = hashlib.sha256(checkpoint.tokenizer_json.encode()).hexdigest()
    return artifacts

"""An export like another one, but for its encoders' weights: as if the model had been trained a little longer."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
from lychee_client.golden import golden_inputs
from lychee_client.manifest import GoldenPairs, Manifest, write_manifest
from lychee_client.repository import ASSETS_MODEL, MANIFEST_FILENAME, MODEL_FILENAME, newest_version, read_manifest
from lychee_export.checkpoint.weight_files import hash_files
from lychee_export.repository.assets import build_client_assets
from lychee_export.repository.manifest import find_version
from lychee_export.verification.in_process import in_process_client
from msgspec import structs
from onnx import numpy_helper

_STRENGTH = 0.3
_LEAST_SIZE = 64  # constants of the graph are smaller


def change_weights(repository: Path, target: Path, seed: int = 0) -> Path:
    """Write a copy of a repository whose encoders have other weights; return its folder."""
    shutil.copytree(repository, target)
    manifest = read_manifest(target)
    assert manifest is not None
    artifacts = dict(manifest.artifacts)
    for name in manifest.max_batch_size:
        if name.endswith("_encoder"):
            path = newest_version(target / name) / MODEL_FILENAME
            _change_file(path, seed)
            artifacts[f"{name}/{MODEL_FILENAME}"] = hash_files((path,))
    changed = structs.replace(manifest, artifacts=artifacts)
    _write(target, structs.replace(changed, version=find_version(changed)))
    with in_process_client(target) as client:
        scores = [client.score(*pair) for pair in golden_inputs(changed)]
    pairs = zip(changed.golden_pairs.pairs, scores, strict=True)
    golden = tuple(structs.replace(pair, relevance_score=score) for pair, score in pairs)
    _write(
        target,
        structs.replace(
            changed, version=find_version(changed), golden_pairs=GoldenPairs(changed.golden_pairs.tolerance, golden)
        ),
    )
    return target


def damage_weights(repository: Path, seed: int) -> None:
    """Change the weights of an export's text encoder, and nothing that it says about itself."""
    _change_file(newest_version(repository / "text_encoder") / MODEL_FILENAME, seed)


def _change_file(path: Path, seed: int) -> None:
    model = onnx.load(path)
    rng = np.random.default_rng(seed)
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.size >= _LEAST_SIZE:
            noise = rng.standard_normal(values.shape, np.float32) * values.std() * _STRENGTH
            tensor.CopyFrom(numpy_helper.from_array(values + noise, tensor.name))
    onnx.save(model, path)


def _write(repository: Path, manifest: Manifest) -> None:
    """Put a manifest into its place, and every model under its version."""
    assets = newest_version(repository / ASSETS_MODEL)
    old = onnx.load(assets / MODEL_FILENAME)
    texts = {node.output[0]: node.attribute[0].t.string_data[0].decode() for node in old.graph.node}
    text = write_manifest(manifest)
    (assets / MANIFEST_FILENAME).write_text(text, encoding="utf-8")
    (assets / MODEL_FILENAME).write_bytes(build_client_assets(text, texts["tokenizer"]).SerializeToString())
    for name in (ASSETS_MODEL, *manifest.max_batch_size):
        newest_version(repository / name).rename(repository / name / manifest.model_version)

"""Optimization profiles = ONNX graph's inputs ⊇ the client's buckets, on exported checkpoints; no GPU takes part."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from checkpoints.exports import LIMITS, build_once, export_once
from google.protobuf import text_format
from lychee_export.contract.signature import BATCH_AXIS, ModelSignature
from lychee_export.families import Checkpoint, load_checkpoint
from lychee_export.onnx.byte_inputs import byte_inputs
from lychee_export.onnx.model_file import read_graph
from lychee_export.repository.tensorrt import VARIANT, OptimizationProfile, profiles, variants
from tritonclient.grpc.model_config_pb2 import ModelConfig

SLOW = (
    "qwen2_5_vl",
    "qwen3_vl",
    "clip",
    "siglip",
    "blip",
    "modernbert_reranker",
    "nemotron_reranker",
    "nemotron_vl_reranker",
)
NAMES = ("lychee-mini", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW))


@pytest.fixture(scope="module", params=NAMES)
def export(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Checkpoint]:
    """Return a repository, and the checkpoint that it was exported from."""
    if request.param == "lychee-mini":
        return request.getfixturevalue("repository"), request.getfixturevalue("checkpoint")
    folder = build_once(request.param, tmp_path_factory)
    return export_once(request.param, tmp_path_factory), load_checkpoint(str(folder), LIMITS)


def encoders(checkpoint: Checkpoint) -> Iterator[ModelSignature]:
    found = [piece.signature for piece in checkpoint.pieces if piece.signature.encoder]
    assert found
    yield from found


def manifest(repository: Path) -> dict[str, Any]:
    path = max(repository.glob("client_assets/*/manifest.json"), key=lambda path: int(path.parent.name))
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def admits(profile: OptimizationProfile, name: str, shape: tuple[int, ...]) -> bool:
    ends = zip(profile.minimum[name], shape, profile.maximum[name], strict=True)
    return all(low <= size <= high for low, size, high in ends)


def fits(shape: tuple[int, ...], axes: Sequence[Any]) -> bool:
    """Whether a shape has the graph's rank, its batch axis first and its fixed sizes."""
    return (
        len(shape) == len(axes)
        and axes[0].dim_param == BATCH_AXIS
        and all(axis.dim_param or axis.dim_value == size for size, axis in zip(shape, axes, strict=True))
    )


def test_the_profiles_fit_the_inputs_of_the_graph(export: tuple[Path, Checkpoint]) -> None:
    repository, checkpoint = export
    for signature in encoders(checkpoint):
        (path,) = (repository / signature.name).glob("*/model.onnx")
        axes = {value.name: value.type.tensor_type.shape.dim for value in read_graph(path).graph.input}
        for profile in profiles(signature):
            for shapes in (profile.minimum, profile.optimum, profile.maximum):
                assert set(shapes) == set(axes)
                assert [name for name, shape in shapes.items() if not fits(shape, axes[name])] == []
            for name, shape in profile.optimum.items():
                assert admits(profile, name, shape)


def test_graphs_hold_what_tensorrt_reads(export: tuple[Path, Checkpoint]) -> None:
    """Operators of ONNX alone, of an opset that TensorRT 10 knows; bytes are read by a cast and nothing else.

    Source: https://github.com/onnx/onnx-tensorrt/blob/main/docs/operators.md for TensorRT 10.0.
    """
    repository, checkpoint = export
    for signature in encoders(checkpoint):
        (path,) = (repository / signature.name).glob("*/model.onnx")
        model = read_graph(path)
        assert {opset.domain: opset.version <= 20 for opset in model.opset_import} == {"": True}
        bytes_in = set(byte_inputs(model))
        assert {node.op_type for node in model.graph.node if bytes_in & set(node.input)} <= {"Cast"}


def test_variants_differ_from_the_served_configuration_in_the_backend_alone(export: tuple[Path, Checkpoint]) -> None:
    repository, checkpoint = export
    for signature in encoders(checkpoint):
        served = text_format.Parse((repository / signature.name / "config.pbtxt").read_text(), ModelConfig())
        texts = variants(signature, "fp32")
        assert tuple(texts) == (VARIANT,)
        for text in texts.values():
            config = text_format.Parse(text, ModelConfig())
            for field in ("name", "max_batch_size", "input", "output", "dynamic_batching"):
                assert getattr(config, field) == getattr(served, field)


def test_every_bucket_of_the_client_is_inside_a_profile_for_every_batch(export: tuple[Path, Checkpoint]) -> None:
    repository, checkpoint = export
    content = manifest(repository)
    image = content.get("image")  # absent where the model reads texts alone
    sizes = {"sequence_length": content["text"]["buckets"]}
    if image is not None and image["kind"] == "patches":
        tokens = [patches // image["merge_size"] ** 2 for patches in image["buckets"]]
        sizes |= {"num_patches": image["buckets"], "num_image_tokens": [1, *tokens]}
    if image is not None and image["kind"] == "tiles":
        tiles = [1, *(count + 1 for count in range(2, image["max_tiles"] + 1))]
        sizes |= {"num_tiles": tiles, "num_image_tokens": [1, *(image["tile_tokens"] * count for count in tiles)]}
    for signature in encoders(checkpoint):
        for rows in range(1, content["max_batch_size"][signature.name] + 1):
            for spec in signature.inputs:
                for pick in (min, max):
                    shape = (rows, *(axis if isinstance(axis, int) else pick(sizes[axis.name]) for axis in spec.shape))
                    assert admits(profiles(signature)[0], spec.name, shape)

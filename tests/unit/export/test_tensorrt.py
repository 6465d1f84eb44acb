"""Optimization profiles, configurations and the builder's script; no GPU takes part."""

from __future__ import annotations

import os
import re
import subprocess
from itertools import product
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from google.protobuf import text_format
from lychee_export.contract.signature import SCORE_OUTPUTS, Axis, ModelSignature, TensorSpec
from lychee_export.errors import CheckpointError
from lychee_export.onnx.byte_inputs import take_shapes_after_casts
from lychee_export.repository.tensorrt import (
    VARIANT,
    build_script,
    builder_arguments,
    profiles,
    variants,
)
from onnx import TensorProto, helper
from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelInstanceGroup

LENGTH = Axis("sequence_length", (16, 32, 64, 128, 256, 512))
IMAGE_TOKENS = Axis("num_image_tokens", (64, 128, 256, 512))
PATCHES = Axis("num_patches", (256, 512, 1024, 2048), multiple=4)
IDS = TensorSpec("input_ids", "int64", (LENGTH,))
MASK = TensorSpec("attention_mask", "int64", (LENGTH,))
EMBEDS = TensorSpec("image_embeds", "float32", (IMAGE_TOKENS, 64))
GRID = TensorSpec("image_grid_thw", "int64", (2, 3))
PIXELS = TensorSpec("pixel_values", "uint8", (3, 224, 224))
PATCH_VALUES = TensorSpec("pixel_values", "uint8", (PATCHES, 588))
HIDDEN = TensorSpec("hidden", "float32", (64,))
EMBEDDING = TensorSpec("image_embedding", "float32", (3,))

TEXT = ModelSignature("text_encoder", (IDS, MASK), (HIDDEN,), 32, encoder=True)
PAIR = ModelSignature("pair_encoder", (IDS, MASK, EMBEDS, GRID), (HIDDEN,), 32, encoder=True)
PATCH = ModelSignature("patch_encoder", (PATCH_VALUES, GRID), (EMBEDS,), 6, encoder=True)
VISION = ModelSignature("vision_encoder", (PIXELS,), (EMBEDDING,), 16, encoder=True, max_run_elements=9)
HEAD = ModelSignature("scoring_head", (HIDDEN,), SCORE_OUTPUTS, 32)
ENCODERS = (TEXT, PAIR, PATCH, VISION)


def parse(text: str) -> ModelConfig:
    return text_format.Parse(text, ModelConfig())


@pytest.mark.parametrize("signature", ENCODERS, ids=lambda signature: signature.name)
def test_profile_0_admits_every_bucket_and_batch(signature: ModelSignature) -> None:
    profile = profiles(signature)[0]
    axes = {axis.name: axis for spec in signature.inputs for axis in spec.shape if isinstance(axis, Axis)}
    for sizes in product(*(axis.buckets for axis in axes.values())):
        chosen = dict(zip(axes, sizes, strict=True))
        for rows in (1, signature.max_batch_size):
            for spec in signature.inputs:
                shape = (rows, *(chosen[axis.name] if isinstance(axis, Axis) else axis for axis in spec.shape))
                low, high = profile.minimum[spec.name], profile.maximum[spec.name]
                assert all(a <= b <= c for a, b, c in zip(low, shape, high, strict=True))


@pytest.mark.parametrize("signature", ENCODERS, ids=lambda signature: signature.name)
def test_shapes_ascend_and_are_multiples(signature: ModelSignature) -> None:
    for profile in profiles(signature):
        for spec in signature.inputs:
            shapes = [getattr(profile, kind)[spec.name] for kind in ("minimum", "optimum", "maximum")]
            assert all(a <= b <= c for a, b, c in zip(*shapes, strict=True))
            for shape in shapes:
                for size, axis in zip(shape[1:], spec.shape, strict=True):
                    assert size % axis.multiple == 0 if isinstance(axis, Axis) else size == axis


def test_small_shapes_have_a_profile_of_their_own() -> None:
    everything, small = profiles(TEXT)
    assert (everything.optimum["input_ids"], everything.maximum["input_ids"]) == ((16, 256), (32, 512))
    assert (small.optimum["input_ids"], small.maximum["input_ids"]) == ((16, 32), (32, 64))


def test_fixed_shapes_need_one_profile() -> None:
    (profile,) = profiles(VISION)
    assert profile.minimum["pixel_values"] == (1, 3, 224, 224)
    assert profile.maximum["pixel_values"] == (16, 3, 224, 224)


def test_every_profile_admits_a_text_without_image_and_the_whole_batch() -> None:
    for profile in profiles(PAIR):
        assert profile.minimum["image_embeds"] == (1, 1, 64)
        assert profile.maximum["image_embeds"][0] == 32


def test_native_config_names_plan_profiles_and_gpu_and_nothing_that_tensorrt_does_not_read() -> None:
    config = parse(variants(TEXT, "fp32")[VARIANT])
    assert (config.backend, config.default_model_filename) == ("tensorrt", "model.plan")
    assert config.instance_group[0].kind == ModelInstanceGroup.KIND_GPU
    assert list(config.instance_group[0].profile) == ["0", "1"]
    assert list(parse(variants(VISION, "fp32")[VARIANT]).instance_group[0].profile) == ["0"]
    assert config.max_batch_size == 32
    assert config.HasField("dynamic_batching")
    assert not config.parameters
    assert not config.HasField("response_cache")


def test_float32_keeps_its_digits() -> None:
    assert "--noTF32" in builder_arguments(TEXT, "fp32")
    for precision in ("fp16", "bf16"):
        assert builder_arguments(TEXT, precision)[0] == "--skipInference"


def test_a_head_stays_on_the_cpu() -> None:
    assert variants(HEAD, "fp32") == {}
    assert "build scoring_head" not in build_script([TEXT, HEAD], "fp32")


@pytest.mark.parametrize("precision", ["w8", "w4", "s8"])
def test_quantized_weights_are_refused(precision: str) -> None:
    with pytest.raises(CheckpointError, match=r"for ONNX Runtime.*choose fp32, fp16, bf16"):
        variants(TEXT, precision)
    with pytest.raises(CheckpointError):
        build_script([TEXT], precision)


# What TensorRT reads.


def test_shapes_are_taken_after_the_cast_and_values_stay() -> None:
    shape = helper.make_node("Shape", ["pixel_values"], ["size"], "size")
    rows = helper.make_node("Slice", ["size", "first", "second"], ["rows"])
    target = helper.make_node("Concat", ["rows", "three"], ["target"], axis=0)
    pooled = helper.make_node("ReduceMean", ["pixels", "axes"], ["pooled"], keepdims=0)
    reshaped = helper.make_node("Reshape", ["pooled", "target"], ["image_embedding"])
    cast = helper.make_node("Cast", ["pixel_values"], ["pixels"], "cast", to=TensorProto.FLOAT)
    constants = {"first": [0], "second": [1], "three": [3], "axes": [2, 3]}
    graph = helper.make_graph(
        [shape, rows, target, cast, pooled, reshaped],
        "vision_encoder",
        [helper.make_tensor_value_info("pixel_values", TensorProto.UINT8, ["batch_size", 3, 224, 224])],
        [helper.make_tensor_value_info("image_embedding", TensorProto.FLOAT, ["batch_size", 3])],
        [helper.make_tensor(name, TensorProto.INT64, [len(value)], value) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 224, 224), dtype=np.uint8)
    before = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"pixel_values": pixels})
    take_shapes_after_casts(model)
    onnx.checker.check_model(model)
    assert [node.op_type for node in model.graph.node if "pixel_values" in node.input] == ["Cast"]
    after = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"pixel_values": pixels})
    assert np.array_equal(before[0], after[0])


# The script, run with a stand-in for trtexec that writes its arguments as the engine.

TRTEXEC = """#!/bin/bash
[[ $1 == --help ]] && {
    echo "&&&& RUNNING TensorRT.trtexec [TensorRT v${VERSION:-100500}] # trtexec --help"
    echo "${TYPES:-  --fp16  Enable fp16 precision
  --stronglyTyped  Create a strongly typed network. (default = disabled)}"
    exit 0
}
for argument in "$@"; do [[ $argument == --saveEngine=* ]] && engine=${argument#--saveEngine=}; done
[[ -n ${FAIL:-} ]] && { echo partial >"$engine"; exit 3; }
printf '%s\\n' "$@" >"$engine"
"""


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """Make a repository with two versions of a text encoder, one of a vision encoder, and the script."""
    for version in ("text_encoder/9", "text_encoder/10", "vision_encoder/1"):
        (tmp_path / "models" / version).mkdir(parents=True)
        (tmp_path / "models" / version / "model.onnx").write_text(version)
    script = tmp_path / "models" / "build-tensorrt.sh"
    script.write_text(build_script([TEXT, VISION, HEAD], "fp32"))
    script.chmod(0o755)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "trtexec").write_text(TRTEXEC)
    (tmp_path / "bin" / "trtexec").chmod(0o755)
    return tmp_path / "models"


def run(models: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    path = f"{models.parent / 'bin'}:{os.environ['PATH']}"
    return subprocess.run(
        [models / "build-tensorrt.sh"],
        env={"PATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_script_builds_every_encoder_in_its_newest_version(models: Path) -> None:
    done = run(models)
    assert done.returncode == 0, done.stderr
    assert not (models / "text_encoder" / "9" / "model.plan").exists()
    assert (models / "vision_encoder" / "1" / "model.plan").exists()
    arguments = (models / "text_encoder" / "10" / "model.plan").read_text().splitlines()
    assert arguments[0] == f"--onnx={models}/text_encoder/10/model.onnx"
    assert arguments[2:] == ["--stronglyTyped", *builder_arguments(TEXT, "fp32")]
    assert not list(models.rglob(".model.plan*"))


@pytest.mark.parametrize(
    "words",
    [
        "  --stronglyTyped  [Deprecated] Strongly typed network is now enabled by default. This flag is a no-op.",
        "  --skipInference  Exit after the engine has been built",
    ],
)
def test_script_says_nothing_of_types_where_all_networks_are_strongly_typed(models: Path, words: str) -> None:
    """The words of TensorRT 11, and what a later one without the flag may say."""
    done = run(models, VERSION="110000", TYPES=words)
    assert done.returncode == 0, done.stderr
    arguments = (models / "text_encoder" / "10" / "model.plan").read_text().splitlines()
    assert arguments[2:] == builder_arguments(TEXT, "fp32")


def test_script_refuses_a_builder_that_would_choose_types(models: Path) -> None:
    failed = run(models, VERSION="8502", TYPES="  --fp16  Enable fp16 precision")
    assert failed.returncode == 1
    assert "TensorRT v8502 has no --stronglyTyped" in failed.stderr
    assert not list(models.rglob("model.plan"))


def test_script_leaves_engines_alone_that_are_up_to_date(models: Path) -> None:
    run(models)
    assert re.findall("(.*): up to date", run(models).stdout) == ["text_encoder", "vision_encoder"]
    (models / "vision_encoder" / "1" / "model.onnx").write_text("changed")
    assert re.findall("(.*): up to date", run(models).stdout) == ["text_encoder"]
    assert re.findall("(.*): up to date", run(models, VERSION="100600").stdout) == []
    (models / "text_encoder" / "10" / "model.onnx.data").write_text("weights beside the graph")
    assert re.findall("(.*): up to date", run(models, VERSION="100600").stdout) == ["vision_encoder"]


def test_a_failed_build_leaves_no_half_engine_and_keeps_the_old_one(models: Path) -> None:
    run(models)
    plan = models / "text_encoder" / "10" / "model.plan"
    before = plan.read_text()
    (models / "text_encoder" / "10" / "model.onnx").write_text("changed")
    failed = run(models, FAIL="1")
    assert failed.returncode != 0
    assert plan.read_text() == before
    assert not list(models.rglob(".model.plan*"))
    assert run(models).stdout.count("built") == 1


def test_script_says_what_is_missing(models: Path) -> None:
    (models / "vision_encoder" / "1" / "model.onnx").unlink()
    failed = run(models)
    assert failed.returncode != 0
    assert "vision_encoder holds no model.onnx" in failed.stderr
    (models.parent / "bin" / "trtexec").unlink()
    assert "no trtexec here" in run(models).stderr

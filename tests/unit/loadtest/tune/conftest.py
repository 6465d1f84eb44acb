"""Repositories to tune: configurations as `lychee export` writes them, without model files worth loading."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from fakes.cross_encoder import PATCHES_MANIFEST, TILES_MANIFEST
from fakes.dual_encoder import manifest_json
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

TEXT_ENCODER = """name: "text_encoder"
backend: "onnxruntime"
max_batch_size: 32
input { name: "input_ids" data_type: TYPE_INT64 dims: -1 }
input { name: "attention_mask" data_type: TYPE_INT64 dims: -1 }
output { name: "text_embedding" data_type: TYPE_FP32 dims: 8 }
instance_group { count: 1 kind: KIND_CPU }
dynamic_batching { }
parameters { key: "max_run_elements" value { string_value: "2048" } }
parameters { key: "maximum.input_ids" value { string_value: "999" } }
parameters { key: "maximum.sequence_length" value { string_value: "512" } }
"""
VISION_ENCODER = """name: "vision_encoder"
backend: "onnxruntime"
max_batch_size: 16
input { name: "pixel_values" data_type: TYPE_UINT8 dims: 3 dims: 224 dims: 112 }
output { name: "image_embedding" data_type: TYPE_FP32 dims: 8 }
instance_group { count: 1 kind: KIND_CPU }
dynamic_batching { }
"""
CROSS_TEXT = """name: "text_encoder"
backend: "onnxruntime"
max_batch_size: 8
input { name: "input_ids" data_type: TYPE_INT64 dims: -1 }
input { name: "attention_mask" data_type: TYPE_INT64 dims: -1 }
input { name: "image_embeds" data_type: TYPE_FP32 dims: -1 dims: 4096 }
input { name: "image_grid_thw" data_type: TYPE_INT64 dims: 2 dims: 3 }
output { name: "hidden" data_type: TYPE_FP32 dims: 8 }
parameters { key: "run_input" value { string_value: "input_ids" } }
parameters { key: "maximum.sequence_length" value { string_value: "512" } }
"""
CROSS_VISION = """name: "vision_encoder"
backend: "onnxruntime"
max_batch_size: 8
input { name: "pixel_values" data_type: TYPE_UINT8 dims: -1 dims: 588 }
input { name: "image_grid_thw" data_type: TYPE_INT64 dims: 2 dims: 3 }
output { name: "image_embeds" data_type: TYPE_FP32 dims: -1 dims: 8 }
parameters { key: "maximum.num_patches" value { string_value: "960" } }
"""
TILES_VISION = CROSS_VISION.replace("dims: -1 dims: 588", "dims: -1 dims: 3 dims: 32 dims: 32").replace(
    'input { name: "image_grid_thw" data_type: TYPE_INT64 dims: 2 dims: 3 }\n', ""
)
CROSS_MANIFEST = {
    **PATCHES_MANIFEST,
    "text": {"pad_token_id": 0, "max_tokens": 128, "buckets": [64, 128]},
    "image": {**PATCHES_MANIFEST["image"], "buckets": [64, 192, 960]},
}


def write_repository(folder: Path, text: str, vision: str, manifest: Mapping[str, Any]) -> Path:
    """Write two encoders and a manifest."""
    for name, config in (("text_encoder", text), ("vision_encoder", vision)):
        (folder / name / "1").mkdir(parents=True)
        (folder / name / "1" / "model.onnx").touch()
        (folder / name / "config.pbtxt").write_text(config, encoding="utf-8")
    (folder / "client_assets" / "1").mkdir(parents=True)
    (folder / "client_assets" / "1" / "manifest.json").write_text(manifest_json(**manifest), encoding="utf-8")
    return folder


@pytest.fixture
def dual_repository(tmp_path: Path) -> Path:
    """Return the repository of a dual encoder."""
    return write_repository(tmp_path / "dual", TEXT_ENCODER, VISION_ENCODER, {"model_id": "tiny"})


@pytest.fixture
def cross_repository(tmp_path: Path) -> Path:
    """Return the repository of a cross-encoder that reads patches."""
    return write_repository(tmp_path / "cross", CROSS_TEXT, CROSS_VISION, CROSS_MANIFEST)


@pytest.fixture
def tiles_repository(tmp_path: Path) -> Path:
    """Return the repository of a cross-encoder that reads tiles."""
    return write_repository(tmp_path / "tiles", CROSS_TEXT, TILES_VISION, TILES_MANIFEST)


@pytest.fixture
def parse() -> Callable[[str], Any]:
    """Return a function from the text of a configuration to Triton's message."""

    def read(text: str) -> Any:
        return text_format.Parse(text, model_config_pb2.ModelConfig())

    return read

"""The models of a repository, as memory sees them."""

from __future__ import annotations

from pathlib import Path

import pytest
from lychee_loadtest.memory.deployment import read_deployment
from lychee_loadtest.memory.measuring import sizes_of

CONFIG = """
name: "encoder"
backend: "onnxruntime"
max_batch_size: 8
input {{ name: "input_ids" data_type: TYPE_INT64 dims: -1 }}
input {{ name: "pixel_values" data_type: TYPE_UINT8 dims: -1 }}
instance_group {{ count: {count} kind: KIND_CPU }}
instance_group {{ count: 1 kind: {kind} }}
parameters {{ key: "maximum.input_ids" value {{ string_value: "9" }} }}
parameters {{ key: "maximum.num_patches" value {{ string_value: "960" }} }}
parameters {{ key: "maximum.sequence_length" value {{ string_value: "1024" }} }}
"""


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """Write a repository with an encoder, a variant of it, and an ensemble."""
    (tmp_path / "encoder" / "1").mkdir(parents=True)
    (tmp_path / "encoder" / "configs").mkdir()
    (tmp_path / "encoder" / "3").mkdir()
    (tmp_path / "encoder" / "config.pbtxt").write_text(CONFIG.format(count=2, kind="KIND_CPU"))
    (tmp_path / "encoder" / "configs" / "gpu.pbtxt").write_text(CONFIG.format(count=1, kind="KIND_GPU"))
    (tmp_path / "encoder" / "1" / "model.onnx").write_bytes(b"old")
    (tmp_path / "encoder" / "3" / "model.onnx").write_bytes(b"graph")
    (tmp_path / "encoder" / "3" / "model.onnx.data").write_bytes(b"weights")
    (tmp_path / "rerank" / "1").mkdir(parents=True)
    (tmp_path / "rerank" / "config.pbtxt").write_text('name: "rerank" platform: "ensemble"')
    return tmp_path


def test_the_version_that_is_served_counts_with_its_external_data(models: Path) -> None:
    (encoder,) = read_deployment(models)
    assert encoder.path == models / "encoder" / "3" / "model.onnx"
    assert encoder.file_bytes == len(b"graph" + b"weights")
    assert (encoder.instances, encoder.max_batch_size) == (3, 8)
    assert encoder.reads_images
    assert not encoder.wants_gpu


def test_a_variant_of_the_configuration_is_read_as_triton_reads_it(models: Path) -> None:
    (encoder,) = read_deployment(models, "gpu")
    assert (encoder.instances, encoder.wants_gpu) == (2, True)


def test_axes_are_told_from_inputs_and_tokens_are_what_sizes_count(models: Path) -> None:
    (encoder,) = read_deployment(models)
    assert encoder.axes == {"num_patches": 960, "sequence_length": 1024}
    assert encoder.size_axis == "sequence_length"


@pytest.mark.parametrize(
    ("tokens", "sizes"), [(None, (256, 512, 1024)), (100, (16, 48, 100)), (16, (16,)), (9999, (256, 512, 1024))]
)
def test_a_quarter_a_half_and_the_whole_of_the_longest_text_are_measured(
    models: Path, tokens: int | None, sizes: tuple[int, ...]
) -> None:
    (encoder,) = read_deployment(models)
    assert sizes_of(encoder, tokens) == sizes

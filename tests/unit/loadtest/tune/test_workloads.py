"""Inputs made up from a configuration: the model's shapes, within its limits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from lychee_loadtest.tune.workloads import Modality, Subject, make_inputs, read_model_id, read_subject
from lychee_server.errors import RepositoryError


def read(repository: Path, modality: Modality) -> Subject:
    subject = read_subject(repository, modality)
    assert subject is not None
    return subject


def test_texts_have_the_buckets_nearest_to_16_and_64_tokens(dual_repository: Path, cross_repository: Path) -> None:
    assert [work.name for work in read(dual_repository, "text").workloads] == ["16 tokens", "64 tokens"]
    assert [work.name for work in read(cross_repository, "text").workloads] == ["64 tokens"]


def test_without_a_manifest_texts_keep_to_the_models_longest(dual_repository: Path) -> None:
    path = dual_repository / "text_encoder" / "config.pbtxt"
    path.write_text(path.read_text(encoding="utf-8").replace('"512"', '"20"'), encoding="utf-8")
    (dual_repository / "client_assets" / "1" / "manifest.json").write_text("{", encoding="utf-8")
    assert [work.name for work in read(dual_repository, "text").workloads] == ["16 tokens"]
    assert read_model_id(dual_repository) == "dual"


def test_tokens_are_ordinary_and_differ_from_request_to_request(dual_repository: Path) -> None:
    subject = read(dual_repository, "text")
    rng = np.random.default_rng(0)
    one, two = (make_inputs(subject.config, subject.workloads[1], 3, rng) for _ in range(2))
    assert one["input_ids"].shape == (3, 64)
    assert one["input_ids"].dtype == np.int64
    assert one["input_ids"].min() >= 10
    assert one["input_ids"].max() <= 999 // 2
    assert (one["input_ids"] != two["input_ids"]).any()
    assert (one["attention_mask"] == 1).all()


def test_a_cross_encoders_text_has_no_image(cross_repository: Path) -> None:
    subject = read(cross_repository, "text")
    inputs = make_inputs(subject.config, subject.workloads[0], 2, np.random.default_rng(0))
    assert inputs["image_embeds"].shape == (2, 1, 4096)
    assert inputs["image_embeds"].dtype == np.float32
    assert inputs["image_grid_thw"].shape == (2, 2, 3)
    assert not inputs["image_grid_thw"].any()


def test_row_elements_are_those_of_the_input_that_the_configuration_names(
    cross_repository: Path, dual_repository: Path
) -> None:
    assert read(cross_repository, "text").workloads[0].row_elements == 64
    assert read(dual_repository, "text").workloads[1].row_elements == 64
    config = cross_repository / "text_encoder/config.pbtxt"
    config.write_text(config.read_text().replace('parameters { key: "run_input"', 'parameters { key: "maximum.x"'))
    assert read(cross_repository, "text").workloads[0].row_elements == 4096  # of the largest, where none is named


def test_images_have_the_models_size(dual_repository: Path) -> None:
    subject = read(dual_repository, "image")
    (work,) = subject.workloads
    assert work.name == "224 x 112"
    pixels = make_inputs(subject.config, work, 2, np.random.default_rng(0))["pixel_values"]
    assert pixels.shape == (2, 3, 224, 112)
    assert pixels.dtype == np.uint8


def test_patches_are_one_image_that_fits_the_bucket(cross_repository: Path) -> None:
    subject = read(cross_repository, "image")
    assert [work.name for work in subject.workloads] == ["192 patches", "960 patches"]
    for work, patches in zip(subject.workloads, (192, 960), strict=True):
        inputs = make_inputs(subject.config, work, 1, np.random.default_rng(0))
        frames, height, width = inputs["image_grid_thw"][0, 0]
        assert inputs["pixel_values"].shape == (1, patches, 588)
        assert frames == 1
        assert height % 2 == width % 2 == 0
        assert 0.9 * patches <= height * width <= patches
        assert not inputs["image_grid_thw"][0, 1].any()


def test_tiles_are_one_and_as_many_as_an_image_may_have(tiles_repository: Path) -> None:
    subject = read(tiles_repository, "image")
    assert [work.name for work in subject.workloads] == ["1 tiles", "7 tiles"]
    for work, tiles in zip(subject.workloads, (1, 7), strict=True):
        inputs = make_inputs(subject.config, work, 2, np.random.default_rng(0))
        assert inputs["pixel_values"].shape == (2, tiles, 3, 32, 32)


def test_a_model_that_is_missing_is_none(tmp_path: Path) -> None:
    assert read_subject(tmp_path, "text") is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("max_batch_size: 32", "max_batch_size: 0", "expected at least 1"),
        ("data_type: TYPE_INT64", "data_type: TYPE_STRING", "the input input_ids, whose type"),
        ("max_batch_size: 32", "max_batch_size: many", "is not a Triton model configuration"),
    ],
)
def test_a_configuration_that_cannot_be_tuned_is_named(dual_repository: Path, old: str, new: str, message: str) -> None:
    path = dual_repository / "text_encoder" / "config.pbtxt"
    path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    with pytest.raises(RepositoryError, match=message):
        read_subject(dual_repository, "text")

"""What a model repository must hold before Triton is started."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from fakes.dual_encoder import manifest_json
from lychee_server import RepositoryError
from lychee_server.repository import check_repository, check_variant, describe_variant


def add_model(
    repository: Path, name: str, config: str = 'backend: "onnxruntime"', file: str | None = "1/model.onnx"
) -> Path:
    folder = repository / name
    folder.mkdir()
    (folder / "config.pbtxt").write_text(config, encoding="utf-8")
    if file is not None:
        (folder / file).parent.mkdir()
        (folder / file).touch()
    return folder


def test_a_complete_repository_names_its_models(tmp_path: Path) -> None:
    add_model(tmp_path, "b", 'backend: "onnxruntime" default_model_filename: "other.onnx"', "2/other.onnx")
    add_model(tmp_path, "a", 'platform: "ensemble"', "1/ignored")
    add_model(tmp_path, "c", 'backend: "python"', None)
    (tmp_path / "notes").mkdir()
    assert check_repository(tmp_path) == ["a", "b", "c"]


def test_a_missing_repository_is_named(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match=r"nowhere does not exist.*lychee export.*--repository"):
        check_repository(tmp_path / "nowhere")


def test_an_empty_repository_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match=r"holds no model.*lychee export"):
        check_repository(tmp_path)


def test_all_missing_files_are_listed(tmp_path: Path) -> None:
    add_model(tmp_path, "a", file=None)
    add_model(tmp_path, "b", file="1/other.onnx")
    add_model(tmp_path, "c", 'platform: "ensemble"', None)
    with pytest.raises(RepositoryError, match="lychee export") as caught:
        check_repository(tmp_path)
    missing = [line.strip() for line in str(caught.value).splitlines() if line.startswith("  ")]
    assert missing == [str(tmp_path / path) for path in ("a/1/model.onnx", "b/1/model.onnx", "c/1")]


def test_the_highest_version_counts(tmp_path: Path) -> None:
    folder = add_model(tmp_path, "a")
    (folder / "10").mkdir()
    with pytest.raises(RepositoryError, match=r"a/10/model\.onnx"):
        check_repository(tmp_path)


def test_a_configuration_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    add_model(tmp_path, "a", "max_batch_size: many")
    with pytest.raises(RepositoryError, match=r"a/config\.pbtxt is not a Triton model configuration"):
        check_repository(tmp_path)


def test_a_variant_is_taken_where_a_model_has_it(tmp_path: Path) -> None:
    folder = add_model(tmp_path, "a")
    add_model(tmp_path, "b")
    (folder / "configs").mkdir()
    variant = 'backend: "onnxruntime" default_model_filename: "small.onnx"'
    (folder / "configs" / "cpu.pbtxt").write_text(variant, encoding="utf-8")
    with pytest.raises(RepositoryError, match=r"a/1/small\.onnx"):
        check_repository(tmp_path, "cpu")
    assert check_repository(tmp_path) == ["a", "b"]


def test_a_variant_that_no_model_has_falls_back_and_is_said(tmp_path: Path) -> None:
    folder = add_model(tmp_path, "a")
    assert check_repository(tmp_path, "gpu") == ["a"]
    assert re.search(
        r"no model has configs/gpu\.pbtxt.*config\.pbtxt says.*\(none\)", describe_variant(tmp_path, "gpu")
    )
    (folder / "configs").mkdir()
    (folder / "configs" / "cpu.pbtxt").write_text('backend: "onnxruntime"', encoding="utf-8")
    assert describe_variant(tmp_path, "gpu").endswith("Names that some model has: cpu")
    assert describe_variant(tmp_path, "cpu") == describe_variant(tmp_path, None) == ""


def test_missing_weights_of_a_large_model_are_listed(tmp_path: Path) -> None:
    add_model(tmp_path, "a")
    assets = add_model(tmp_path, "client_assets", file="2/model.onnx")
    manifest = assets / "2" / "manifest.json"
    artifacts = {"tokenizer": "0" * 64, "a/model.onnx": "1", "a/model.onnx.data": "2"}
    manifest.write_text(manifest_json(artifacts=artifacts), encoding="utf-8")
    with pytest.raises(RepositoryError, match=r"Missing:\n  .*a/1/model\.onnx\.data\n"):
        check_repository(tmp_path)
    (tmp_path / "a/1/model.onnx.data").touch()
    assert check_repository(tmp_path) == ["a", "client_assets"]


def test_a_manifest_that_cannot_be_read_asks_for_nothing(tmp_path: Path) -> None:
    assets = add_model(tmp_path, "client_assets")
    (assets / "1" / "manifest.json").write_text("[", encoding="utf-8")
    assert check_repository(tmp_path) == ["client_assets"]


def test_a_model_outside_the_version_that_clients_name_is_missing(tmp_path: Path) -> None:
    add_model(tmp_path, "text_encoder", file="1/model.onnx")
    add_model(tmp_path, "stranger", file="1/model.onnx")
    assets = add_model(tmp_path, "client_assets", file="77/model.onnx")
    manifest = manifest_json(version=77, max_batch_size={"text_encoder": 4})
    (assets / "77" / "manifest.json").write_text(manifest, encoding="utf-8")
    with pytest.raises(RepositoryError, match=r"Missing:\n  .*text_encoder/77/model\.onnx\n"):
        check_repository(tmp_path)
    (tmp_path / "text_encoder" / "1").rename(tmp_path / "text_encoder" / "77")
    assert check_repository(tmp_path) == ["client_assets", "stranger", "text_encoder"]


TENSORS = (
    'max_batch_size: 4 input { name: "pixel_values" data_type: TYPE_UINT8 dims: 3 dims: 224 dims: 224 } '
    'output { name: "embedding" data_type: TYPE_FP32 dims: 8 }'
)


@pytest.mark.parametrize(
    ("variant", "problem"),
    [
        (
            TENSORS.replace("224", "448"),
            r"a: input pixel_values has \[-1, 3, 448, 448\] there and has \[-1, 3, 224, 224\] in config",
        ),
        (TENSORS.replace("embedding", "other"), "a: output embedding is absent there and has .*; output other has"),
        (TENSORS.replace("size: 4", "size: 2") + " instance_group { count: 2 }", None),
    ],
)
def test_a_variant_of_another_model_is_refused(tmp_path: Path, variant: str, problem: str | None) -> None:
    folder = add_model(tmp_path, "a", TENSORS)
    (folder / "configs").mkdir()
    (folder / "configs" / "tuned.pbtxt").write_text(variant, encoding="utf-8")
    check_variant(tmp_path, None)
    check_variant(tmp_path, "another")
    if problem is None:
        check_variant(tmp_path, "tuned")
    else:
        with pytest.raises(RepositoryError, match=problem) as caught:
            check_variant(tmp_path, "tuned")
        assert "Run `lychee tune` again, remove these files, or leave --config-name out." in str(caught.value)

"""A repository that has kept exports, and a variant of another model, in a real Triton."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Final

import pytest
from checkpoints.changed_weights import change_weights
from checkpoints.exports import export_once
from lychee_client.exports import list_exports
from lychee_client.repository import read_manifest
from lychee_server import RepositoryError, TritonServer
from lychee_server.triton_admin import read_repository_index

pytestmark = pytest.mark.triton
FREE_PORTS: Final[dict[str, Any]] = {"http_port": 0, "grpc_port": 0, "metrics_port": 0}


def read_index(repository: Path, log_path: Path) -> list[tuple[str, str, str]]:
    """Return the name, version and state of each model that Triton sees."""
    with TritonServer(repository, config_name="cpu", **FREE_PORTS, log_path=log_path) as server:
        index = read_repository_index(server.host, server.http_port, server.key)
    return sorted((model["name"], model["version"], model["state"]) for model in index)


def test_triton_sees_the_same_models_with_kept_exports_and_without(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    repository = Path(shutil.copytree(export_once("clip", tmp_path_factory), tmp_path / "repository"))
    without = read_index(repository, tmp_path / "without.log")
    other = change_weights(repository, tmp_path / "other")
    manifest = read_manifest(other)
    assert manifest is not None
    kept = repository / "client_assets" / "previous" / str(manifest.version)
    shutil.copytree(other, kept)
    (repository / "client_assets" / "previous" / ".leaving").mkdir()
    assert len(list_exports(repository)) == 2
    assert read_index(repository, tmp_path / "with.log") == without
    assert [state for _, _, state in without] == ["READY"] * len(without)


def test_a_variant_of_another_model_ends_before_triton_starts(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    repository = Path(shutil.copytree(export_once("clip", tmp_path_factory), tmp_path / "repository"))
    variants = repository / "vision_encoder" / "configs"
    text = (variants / "cpu.pbtxt").read_text(encoding="utf-8")
    (variants / "tuned.pbtxt").write_text(text.replace("image_embedding", "embedding"), encoding="utf-8")
    server = TritonServer(repository, config_name="tuned", **FREE_PORTS, log_path=tmp_path / "triton.log")
    with pytest.raises(RepositoryError, match=r"vision_encoder: output embedding .*\nRun `lychee tune` again"), server:
        raise AssertionError
    assert not (tmp_path / "triton.log").exists()

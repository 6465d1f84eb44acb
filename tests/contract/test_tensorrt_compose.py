"""docker-compose.yml against what the exporter writes; no container runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from lychee_export.repository.tensorrt import BUILD_SCRIPT


@pytest.fixture(scope="module")
def services(root: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((root / "docker-compose.yml").read_text(encoding="utf-8"))
    return dict(content["services"])


def mounts(service: dict[str, Any]) -> dict[str, str]:
    """Return the options of each mount by its path in the container."""
    parts = [volume.rsplit(":", 2) for volume in service["volumes"]]
    return {(part[1] if part[-1] == "ro" else part[-1]): part[-1] for part in parts}


def image(service: dict[str, Any]) -> tuple[str, str]:
    name, _, tag = service["image"].partition(":")
    return name, tag


def test_builder_runs_the_script_once_where_it_can_write_the_engines(services: dict[str, Any]) -> None:
    builder = services["tensorrt-build"]
    assert builder["command"] == [f"/models/{BUILD_SCRIPT}"]
    assert mounts(builder) == {"/models": "/models"}
    assert builder["restart"] == "no"
    assert builder["profiles"] == ["tensorrt"]


def test_server_reads_the_repository(services: dict[str, Any]) -> None:
    for name in ("triton", "triton-gpu"):
        assert mounts(services[name]) == {"/models": "ro"}


def test_builder_and_server_have_the_same_release(services: dict[str, Any]) -> None:
    assert image(services["tensorrt-build"]) == ("nvcr.io/nvidia/tensorrt", "${TRITON_TAG:-26.03-py3}")
    assert image(services["triton"]) == ("nvcr.io/nvidia/tritonserver", "${TRITON_TAG:-26.03-py3}")
    assert services["triton-gpu"]["image"] == services["triton"]["image"]


def test_gpus_are_reserved_where_they_are_needed_alone(services: dict[str, Any]) -> None:
    for name in ("triton-gpu", "tensorrt-build"):
        (device,) = services[name]["deploy"]["resources"]["reservations"]["devices"]
        assert device["capabilities"] == ["gpu"]
    assert "deploy" not in services["triton"]
    assert "profiles" not in services["triton"]

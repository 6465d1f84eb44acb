"""The images that are built here: what they hold, what they say of themselves, how large they are."""

from __future__ import annotations

import json
from typing import Any

import pytest
from deployment import TARGETS, dockerfile_argument

from containers.stack import Stack

GATEWAY_MB = 450
NOT_FOR_A_GATEWAY = {
    "torch",
    "transformers",
    "onnx",
    "onnxruntime",
    "onnxruntime-openvino",
    "nvidia-pytriton",
    "matplotlib",
}
FIND_TESTS = "import os; print([path for path, *_ in os.walk('/opt/lychee') if path.endswith('/tests')])"


def describe(images: Stack, target: str) -> dict[str, Any]:
    """Return what the engine says of an image."""
    (content,) = json.loads(images.engine.run("image", "inspect", f"lychee-rerank-{target}").stdout)
    return dict(content)


def read_inside(images: Stack, target: str, *command: str) -> str:
    """Return what a program prints in a new container, which is read-only but for /tmp and has no network."""
    options = ["--rm", "--read-only", "--tmpfs=/tmp", "--network=none", "--cap-drop=ALL", f"--entrypoint={command[0]}"]
    return images.engine.run("run", *options, f"lychee-rerank-{target}", *command[1:]).stdout


@pytest.mark.parametrize("target", TARGETS)
def test_image_says_what_it_is(images: Stack, target: str) -> None:
    config = describe(images, target)["Config"]
    labels = {name.removeprefix("org.opencontainers.image."): value for name, value in config["Labels"].items()}
    assert labels["title"] == f"lychee-rerank-{target}"
    assert labels["version"] == dockerfile_argument("VERSION")
    assert labels["licenses"].startswith("Apache-2.0")
    assert {"revision", "source"} <= set(labels)
    assert config["User"] == "10001:10001"


@pytest.mark.parametrize("target", TARGETS)
def test_bill_of_materials_names_what_is_installed(images: Stack, target: str) -> None:
    listed = json.loads(read_inside(images, target, "cat", "/opt/lychee/sbom.cdx.json"))
    versions = {component["name"].lower(): component["version"] for component in listed["components"]}
    list_installed = (
        "import importlib.metadata as m, json; print(json.dumps({d.name: d.version for d in m.distributions()}))"
    )
    installed = json.loads(read_inside(images, target, "python", "-c", list_installed))
    assert versions == {name.lower(): version for name, version in installed.items()}
    assert {"lychee-rerank-client", "numpy"} <= set(versions)
    assert (target == "export") == ("torch" in versions)


def test_gateway_is_small_and_holds_no_model_runtime(images: Stack) -> None:
    assert describe(images, "gateway")["Size"] <= GATEWAY_MB * 1_000_000
    listed = json.loads(read_inside(images, "gateway", "cat", "/opt/lychee/sbom.cdx.json"))
    assert not NOT_FOR_A_GATEWAY & {component["name"].lower() for component in listed["components"]}


@pytest.mark.parametrize("target", TARGETS)
def test_image_holds_no_tests_of_its_packages(images: Stack, target: str) -> None:
    assert read_inside(images, target, "python", "-c", FIND_TESTS).strip() == "[]"


def test_export_reads_the_bundled_checkpoint_without_a_network(images: Stack) -> None:
    assert "vision_encoder" in read_inside(images, "export", "lychee", "export", "lychee-mini", "--dry-run")

"""A machine with a GPU gets one build of ONNX Runtime, with the libraries for which it was built."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

BUILD = re.compile(r"^onnxruntime[\w-]*")


@pytest.fixture(scope="module")
def pins(root: Path) -> dict[str, str]:
    """Return the pinned versions by package."""
    text = (root / "constraints.txt").read_text(encoding="utf-8")
    return dict(re.findall(r"^([\w.-]+)==(\S+)$", text, re.MULTILINE))


def test_each_extra_for_serving_names_one_build_of_onnx_runtime(root: Path) -> None:
    project = tomllib.loads((root / "server" / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    builds = {name: [found[0] for each in extras[name] if (found := BUILD.match(each))] for name in ("triton", "gpu")}
    assert builds == {"triton": ["onnxruntime-openvino"], "gpu": ["onnxruntime-gpu"]}
    assert not any(BUILD.match(each) for each in project["dependencies"])
    rest = [{each for each in extras[name] if not BUILD.match(each)} for name in builds]
    assert rest[0] == rest[1]


def test_both_builds_have_one_version(pins: dict[str, str]) -> None:
    assert pins["onnxruntime-gpu"] == pins["onnxruntime-openvino"]


def test_the_libraries_are_of_the_cuda_for_which_the_build_was_made(pins: dict[str, str]) -> None:
    libraries = {name: version for name, version in pins.items() if name.endswith("-cu12")}
    kinds = {"cublas", "cuda-nvrtc", "cuda-runtime", "cudnn", "cufft", "curand", "nvjitlink"}
    assert libraries.keys() == {f"nvidia-{kind}-cu12" for kind in kinds}
    of_cuda = {kind: libraries[f"nvidia-{kind}-cu12"] for kind in ("cublas", "cuda-nvrtc", "cuda-runtime", "nvjitlink")}
    assert all(version.startswith("12.8.") for version in of_cuda.values())
    assert libraries["nvidia-cudnn-cu12"].startswith("9.")


@pytest.mark.parametrize("gpu", ["/dev/nvidiactl", ""])
def test_make_replaces_the_build_where_there_is_a_gpu(root: Path, gpu: str) -> None:
    command = ["make", "--dry-run", "--always-make", ".venv/.installed", f"GPU={gpu}"]
    lines = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout.splitlines()
    steps = [
        step
        for line in lines
        for step in ("server[triton", "uninstall -qq --yes onnxruntime-openvino", "server[gpu]")
        if step in line
    ]
    expected = ["server[triton", "uninstall -qq --yes onnxruntime-openvino", "server[gpu]"]
    assert steps == (expected if gpu else expected[:1])

"""The installation commands of the gateway's Dockerfile, run outside a container."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from deployment import ROOT, read_dockerfile

from .conftest import GATEWAY_DOCKERFILE

pytestmark = [pytest.mark.network, pytest.mark.slow]

SWITCH = "LYCHEE_TEST_IMAGES"
INSTALLED = "/opt/lychee"
NOT_FOR_A_GATEWAY = ("torch", "transformers", "onnx", "onnxruntime", "pytriton")
TIMEOUT_S = 900


@pytest.mark.skipif(not os.environ.get(SWITCH), reason=f"installs 700 MB in minutes; set {SWITCH}=1 to run it")
def test_gateway_installs_without_triton_and_torch(tmp_path: Path) -> None:
    build, installed = tmp_path / "build", tmp_path / "lychee"
    build.mkdir()
    # The image has pip for its Python; a virtual environment stands in for that.
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "python"], check=True, timeout=TIMEOUT_S)
    environment = {**os.environ, "PATH": f"{tmp_path / 'python' / 'bin'}:{os.environ['PATH']}"}
    instructions = read_dockerfile(GATEWAY_DOCKERFILE)
    stages = [number for number, (name, _) in enumerate(instructions) if name == "FROM"]
    for name, arguments in instructions[stages[0] : stages[1]]:
        if name == "COPY":
            *sources, target = arguments.split()
            for source in sources:
                copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copy2
                copy(ROOT / source, build / target)
        elif name == "ENV":
            environment |= dict(word.split("=", 1) for word in arguments.split())
        elif name == "RUN":
            command = arguments.replace(INSTALLED, str(installed))
            finished = subprocess.run(
                ["sh", "-euc", command], cwd=build, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S
            )
            assert finished.returncode == 0, finished.stderr
    (packages,) = installed.glob("lib/python*/site-packages")
    assert not [name for name in NOT_FOR_A_GATEWAY if (packages / name).exists()]
    said = subprocess.run(
        [installed / "bin" / "lychee", "gateway", "--help"], capture_output=True, text=True, timeout=TIMEOUT_S
    )
    assert said.returncode == 0, said.stderr
    assert "--triton-url" in said.stdout

"""The client alone, in a fresh environment with nothing but its own dependencies."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from lychee_server import TritonServer

pytestmark = [pytest.mark.network, pytest.mark.triton]

ABSENT = {"torch", "transformers", "onnx", "onnxruntime", "onnxruntime-openvino", "scikit-learn", "matplotlib", "scipy"}
RANK = """
import json, sys
from lychee_client import Image, LycheeClient
url, photo = sys.argv[1:]
with LycheeClient(url) as client:
    response = client.rerank("a cat", ["a rocket", Image.from_path(photo)])
print(json.dumps([result.index for result in response.results]))
"""


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def environment(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the client's wheel; return the folder of the programs."""
    folder = tmp_path_factory.mktemp("environment")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    built = run(*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, root / "client")
    assert built.returncode == 0, built.stderr
    (wheel,) = folder.glob("lychee_rerank_client-*.whl")
    assert run(sys.executable, "-m", "venv", folder / "venv").returncode == 0
    programs = folder / "venv" / "bin"
    pip[0] = str(programs / "python")
    installed = run(*pip, "install", "--constraint", root / "constraints.txt", wheel)
    assert installed.returncode == 0, installed.stderr
    return programs


def test_no_model_library_is_installed(environment: Path) -> None:
    listed = run(environment / "python", "-m", "pip", "list", "--format=json", "--disable-pip-version-check")
    names = {package["name"].lower() for package in json.loads(listed.stdout)}
    assert "lychee-rerank-client" in names
    assert not names & ABSENT


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_it_ranks(environment: Path, server: TritonServer, photos: Path, protocol: str) -> None:
    url = server.grpc_url if protocol == "grpc" else f"http://{server.http_url}"
    ranked = run(environment / "python", "-W", "error", "-c", RANK, url, photos / "cat.jpg")
    assert (ranked.stdout.strip(), ranked.stderr) == ("[1, 0]", "")


def test_command_works(environment: Path, server: TritonServer) -> None:
    scored = run(
        environment / "lychee", "score", "--url", server.grpc_url, "--query", "a cat", "--text", "a cat", "--json"
    )
    assert scored.returncode == 0, scored.stderr
    assert json.loads(scored.stdout)["decision"] == "accept"
    listed = run(environment / "lychee", "instructions", "list", "--json")
    assert "customer-service" in listed.stdout


def test_calibration_names_the_extra(environment: Path, root: Path, server: TritonServer, tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.csv"
    rows = [f"query {number},text {number},{number % 2}" for number in range(40)]
    pairs.write_text("\n".join(["query,text,relevant", *rows]), encoding="utf-8")
    output = tmp_path / "calibration.json"
    refused = run(environment / "lychee", "calibrate", pairs, "--url", server.grpc_url, "--output", output)
    assert refused.returncode == 2
    assert "lychee-rerank-client[calibration]" in refused.stderr
    assert not output.exists()

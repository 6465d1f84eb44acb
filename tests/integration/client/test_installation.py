"""The client alone, in a fresh environment with nothing but its own dependencies."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from lychee_server import TritonServer

pytestmark = [pytest.mark.network, pytest.mark.triton]

ABSENT = {"torch", "transformers", "onnx", "onnxruntime", "onnxruntime-openvino"}
ABSENT |= {"matplotlib", "rich", "scikit-learn", "scipy", "typer"}
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


def test_program_names_the_extra_and_works_with_it(environment: Path, root: Path, server: TritonServer) -> None:
    refused = run(environment / "lychee", "--version")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "pip install 'lychee-rerank-client[cli]'" in refused.stderr
    (wheel,) = environment.parent.parent.glob("lychee_rerank_client-*.whl")
    pip = [environment / "python", "-m", "pip", "--disable-pip-version-check", "install"]
    installed = run(*pip, "--constraint", root / "constraints.txt", f"{wheel}[cli]")
    assert installed.returncode == 0, installed.stderr
    scored = run(
        environment / "lychee", "score", "--url", server.grpc_url, "--query", "a cat", "--text", "a cat", "--json"
    )
    assert scored.returncode == 0, scored.stderr
    assert json.loads(scored.stdout)["decision"] == "accept"
    missing = run(environment / "lychee", "calibrate")
    assert (missing.returncode, missing.stdout) == (2, "")
    assert 'pip install "lychee-rerank[evaluate]"' in missing.stderr

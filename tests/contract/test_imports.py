"""Each distribution imports only what its place in the design allows."""

import ast
import sys
from pathlib import Path

import pytest

HEAVY = {"huggingface_hub", "onnx", "onnx_ir", "onnxruntime", "onnxscript", "torch", "transformers"}
PROJECT = {"lychee_client", "lychee_export", "lychee_server"}

ALLOWED = {
    "client/lychee_client": {
        "PIL",
        "aiohttp",
        "google",
        "grpc",
        "lychee_client",
        "matplotlib",
        "numpy",
        "platformdirs",
        "rich",
        "scipy",
        "sklearn",
        "tokenizers",
        "tritonclient",
        "typer",
    },
    "export/lychee_export": {
        "google",
        "huggingface_hub",
        "lychee_client",  # verification runs the client's own code on the exported files
        "lychee_export",
        "numpy",
        "onnx",
        "onnx_ir",
        "onnxruntime",
        "onnxscript",
        "PIL",
        "safetensors",
        "tokenizers",
        "torch",
        "transformers",
        "tritonclient",
        "typer",
    },
    "server/lychee_server": {
        "PIL",
        "aiohttp",
        "fastapi",
        "google",
        "gradio",
        "grpc",
        "lychee_client",
        "lychee_server",
        "numpy",
        "platformdirs",
        "prometheus_client",
        "psutil",
        "pydantic",
        "redis",
        "rich",
        "starlette",
        "tritonclient",
        "typer",
        "uvicorn",
        "yarl",
    },
    "server/backends": {"numpy", "onnxruntime", "triton_python_backend_utils"},
    "loadtest": {
        "PIL",
        "aiohttp",
        "client_bench",
        "lychee_client",
        "locust",
        "lychee_export",
        "machine",
        "measurement",
        "numpy",
        "onnx",
        "payloads",
        "torch",
        "transformers",
        "tritonclient",
    },
    "examples": {"catalogue", "lychee_client", "lychee_server", "rich"},
}


def imported(path: Path) -> set[str]:
    """Return the top-level names that a file imports; relative imports stay inside their package."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.partition(".")[0])
    return names - set(sys.stdlib_module_names)


@pytest.mark.parametrize("folder", sorted(ALLOWED))
def test_folder_imports_only_what_the_design_allows(root: Path, folder: str) -> None:
    files = sorted((root / folder).rglob("*.py"))
    assert files
    foreign = {f"{path.relative_to(root)}: {name}" for path in files for name in imported(path) - ALLOWED[folder]}
    assert not foreign


def test_the_table_keeps_the_client_light_and_the_layers_apart() -> None:
    assert not ALLOWED["client/lychee_client"] & HEAVY
    assert not ALLOWED["server/lychee_server"] & HEAVY
    assert ALLOWED["client/lychee_client"] & PROJECT == {"lychee_client"}
    assert ALLOWED["export/lychee_export"] & PROJECT == {"lychee_client", "lychee_export"}
    assert ALLOWED["server/lychee_server"] & PROJECT == {"lychee_client", "lychee_server"}
    assert ALLOWED["loadtest"] & PROJECT == {"lychee_client", "lychee_export"}


def test_only_verification_brings_the_client_into_the_exporter(root: Path) -> None:
    package = root / "export" / "lychee_export"
    users = {path.relative_to(package).parts[0] for path in package.rglob("*.py") if "lychee_client" in imported(path)}
    assert users == {"verification", "verify_cli.py"}

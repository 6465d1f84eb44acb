"""Each distribution imports only what its place in the design allows."""

import ast
import subprocess
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
        "matplotlib",
        "numpy",
        "onnxruntime",
        "platformdirs",
        "prometheus_client",
        "psutil",
        "pydantic",
        "pynvml",
        "redis",
        "rich",
        "starlette",
        "tritonclient",
        "typer",
        "uvicorn",
        "yarl",
    },
    # onnx_sessions is execution/onnx_sessions.py of lychee_server, of which the backend gets a copy.
    "server/backends": {"numpy", "onnx_sessions", "onnxruntime", "triton_python_backend_utils"},
    "loadtest": {
        "PIL",
        "aiohttp",
        "gevent",
        "grpc",
        "locust",
        "lychee_client",
        "lychee_export",
        "lychee_server",
        "numpy",
        "onnx",
        "onnxruntime",
        "pydantic",
        "scipy",
        "sklearn",
        "tokenizers",
        "torch",
        "transformers",
        "tritonclient",
    },
    # In environments of their own: nothing of this project.
    "loadtest/compare/alternatives": {
        "PIL",
        "fastapi",
        "numpy",
        "pydantic",
        "pytriton",
        "torch",
        "transformers",
        "uvicorn",
    },
    "examples": {"lychee_client", "lychee_server", "rich"},
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
    inner = [root / other for other in ALLOWED if other.startswith(f"{folder}/")]
    files = [path for path in (root / folder).rglob("*.py") if not any(path.is_relative_to(other) for other in inner)]
    assert files
    # Folders of scripts are no packages: their modules import each other by name.
    scripts = {path.stem for path in files if not (path.parent / "__init__.py").exists()}
    packages = {path.parent.name for path in files if path.name == "__init__.py"}
    allowed = ALLOWED[folder] | scripts | packages
    foreign = {f"{path.relative_to(root)}: {name}" for path in files for name in imported(path) - allowed}
    assert not foreign


def test_the_table_keeps_the_client_light_and_the_layers_apart() -> None:
    assert not ALLOWED["client/lychee_client"] & HEAVY
    assert ALLOWED["server/lychee_server"] & HEAVY == {"onnxruntime"}
    assert ALLOWED["client/lychee_client"] & PROJECT == {"lychee_client"}
    assert ALLOWED["export/lychee_export"] & PROJECT == {"lychee_client", "lychee_export"}
    assert ALLOWED["server/lychee_server"] & PROJECT == {"lychee_client", "lychee_server"}
    assert ALLOWED["loadtest"] & PROJECT == PROJECT


def test_only_what_measures_models_brings_onnxruntime_into_the_server(root: Path) -> None:
    package = root / "server" / "lychee_server"
    users = {path.relative_to(package).parts[0] for path in package.rglob("*.py") if imported(path) & HEAVY}
    assert users <= {"execution", "memory"}


def test_importing_the_server_does_without_onnxruntime() -> None:
    code = "import sys, lychee_server, lychee_server.cli; sys.exit('onnxruntime' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_the_backend_gets_a_copy_of_stands_alone(root: Path) -> None:
    copied = root / "server" / "lychee_server" / "execution" / "onnx_sessions.py"
    assert imported(copied) == {"onnxruntime"}


def test_only_verification_brings_the_client_into_the_exporter(root: Path) -> None:
    package = root / "export" / "lychee_export"
    users = {path.relative_to(package).parts[0] for path in package.rglob("*.py") if "lychee_client" in imported(path)}
    assert users == {"verification", "verify_cli.py"}

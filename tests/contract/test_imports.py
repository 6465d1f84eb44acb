"""Each room imports only what the table in CONTRIBUTING.md allows, and no circle leads back."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"^\| `([\w/.]+/)` \| .* \| (.*) \|$", re.MULTILINE)
HEAVY = {"huggingface_hub", "onnx", "onnx_ir", "onnxruntime", "onnxscript", "peft", "torch", "transformers"}
PROJECT = {"lychee_bulk", "lychee_client", "lychee_evaluate", "lychee_export", "lychee_loadtest", "lychee_server"}
BACKEND = "onnx_sessions"  # execution/onnx_sessions.py of lychee_server, of which the backend gets a copy

FOREIGN = {
    "client/lychee_client": "PIL aiohttp google grpc msgspec numpy pillow_heif platformdirs rich sentencex tokenizers "
    "tomli tritonclient typer typing_extensions",
    "client/lychee_client/tracing": "opentelemetry",
    "client/lychee_client/integrations": "haystack langchain_core llama_index msgspec pydantic",
    "evaluate/lychee_evaluate": "charset_normalizer matplotlib numpy openpyxl rich scipy typer",
    "export/lychee_export": "PIL google huggingface_hub msgspec numpy onnx onnx_ir onnxruntime onnxscript packaging "
    "peft safetensors tokenizers torch transformers tritonclient typer",
    "server/lychee_server": "aiohttp fastapi fastapi_offline google numpy onnxruntime opentelemetry "
    "platformdirs prometheus_client psutil pybase64 pydantic pydantic_settings redis starlette tritonclient typer "
    "uvicorn yarl",
    "server/backends": f"numpy onnxruntime triton_python_backend_utils {BACKEND}",
    "loadtest/lychee_loadtest": "PIL aiohttp gevent google grpc locust matplotlib numpy onnx onnxruntime psutil "
    "pydantic pynvml rich scipy sentence_transformers tokenizers torch transformers tritonclient typer",
    "loadtest/lychee_loadtest/compare/alternatives": "PIL fastapi numpy pydantic pytriton torch transformers uvicorn",
    "bulk/lychee_bulk": "fsspec msgspec pyarrow ray rich typer",
    "examples": "rich",
}
"""Which packages of others a folder may use."""


@dataclass(frozen=True)
class Room:
    """A row of the table: a folder with Python files, and what they may import of this project."""

    folder: Path
    allowed: tuple[str, ...]


@dataclass(frozen=True)
class Import:
    """One import: by which module, of which module of this project (or of which other package)."""

    path: Path
    importer: str
    imported: str


def read_rooms() -> dict[Path, Room]:
    """Return the rooms by folder; those of the tests import whatever they test."""
    rows = ROW.findall((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    rooms = {}
    for name, allowed in rows:
        folder = ROOT / name
        if any(folder.rglob("*.py")) and not name.startswith("tests/"):
            rooms[folder] = Room(folder, tuple(re.findall(r"`([\w.]+)`", allowed)))
    return rooms


def module_name(path: Path) -> str:
    """Return a file's name as a module, from its distribution's package on; of a script its stem."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    start = next((place for place, part in enumerate(parts) if part in PROJECT), len(parts) - 1)
    return ".".join(parts[start:]).removesuffix(".__init__")


ROOMS = read_rooms()
FILES = {path for folder in ROOMS for path in folder.rglob("*.py")}
MODULES = {name: path for path in FILES if (name := module_name(path)).partition(".")[0] in PROJECT}


def room_of(path: Path) -> Room:
    """Return the innermost room of a file."""
    return next(ROOMS[folder] for folder in path.parents if folder in ROOMS)


def imports_of(path: Path) -> Iterator[Import]:
    """Yield what a file imports, type checking included, without the standard library."""
    own = module_name(path)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = own.split(".") if path.name == "__init__.py" else own.split(".")[:-1]
                base = ".".join([*package[: len(package) - node.level + 1], *filter(None, [node.module])])
            # A name may be a module of the package, or something in it.
            names = [inner if (inner := f"{base}.{alias.name}") in MODULES else base for alias in node.names]
        else:
            continue
        yield from (Import(path, own, name) for name in names if name.partition(".")[0] not in sys.stdlib_module_names)


def is_in(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def test_every_python_file_has_a_room() -> None:
    tracked = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, check=True, capture_output=True, text=True)
    product = {ROOT / name for name in tracked.stdout.split() if not name.startswith(("tests/", "docs/"))}
    assert {path for path in product if path.exists()} <= FILES


@pytest.mark.parametrize("folder", sorted(ROOMS), ids=lambda folder: str(folder.relative_to(ROOT)))
def test_room_imports_only_what_its_row_allows(folder: Path) -> None:
    room = ROOMS[folder]
    own = module_name(folder / "__init__.py")
    broken = [
        f"{one.path.relative_to(ROOT)}: {one.imported}"
        for path in sorted(folder.rglob("*.py"))
        if room_of(path) == room
        for one in imports_of(path)
        if one.imported.partition(".")[0] in PROJECT
        and not is_in(one.imported, own)
        and not any(is_in(one.imported, package) for package in room.allowed)
    ]
    assert not broken


@pytest.mark.parametrize("folder", sorted(ROOMS), ids=lambda folder: str(folder.relative_to(ROOT)))
def test_row_allows_nothing_that_its_room_does_not_import(folder: Path) -> None:
    room = ROOMS[folder]
    imported = {one.imported for path in folder.rglob("*.py") if room_of(path) == room for one in imports_of(path)}
    unused = {package for package in room.allowed if not any(is_in(module, package) for module in imported)}
    assert not unused


def test_no_module_is_imported_by_one_that_it_imports() -> None:
    graph = {
        module: {one.imported for one in imports_of(path) if one.imported in MODULES and one.imported != module}
        for module, path in MODULES.items()
    }
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the modules


def test_nothing_private_is_imported_across_distributions() -> None:
    private = [
        f"{one.path.relative_to(ROOT)}: {one.imported}"
        for path in sorted(FILES)
        for one in imports_of(path)
        if (package := one.imported.partition(".")[0]) in PROJECT
        and not is_in(one.importer, package)
        and any(part.startswith("_") for part in one.imported.split("."))
    ]
    assert not private


@pytest.mark.parametrize("folder", sorted(FOREIGN))
def test_folder_uses_only_the_packages_that_it_may_use(folder: str) -> None:
    inner = [ROOT / other for other in FOREIGN if other.startswith(f"{folder}/")]
    files = [path for path in (ROOT / folder).rglob("*.py") if not any(path.is_relative_to(other) for other in inner)]
    assert files
    used = {one.imported.partition(".")[0] for path in files for one in imports_of(path)} - PROJECT
    assert used == set(FOREIGN[folder].split())


def test_the_client_is_light_and_the_server_exports_nothing() -> None:
    assert not set(FOREIGN["client/lychee_client"].split()) & HEAVY
    assert not set(FOREIGN["evaluate/lychee_evaluate"].split()) & HEAVY
    assert set(FOREIGN["server/lychee_server"].split()) & HEAVY == {"onnxruntime"}


def test_only_execution_brings_onnxruntime_into_the_server() -> None:
    package = ROOT / "server" / "lychee_server"
    users = {
        path.relative_to(package).parts[0]
        for path in package.rglob("*.py")
        for one in imports_of(path)
        if one.imported.partition(".")[0] in HEAVY
    }
    assert users == {"execution"}


def test_importing_the_server_does_without_onnxruntime() -> None:
    code = "import sys, lychee_server, lychee_server.cli; sys.exit('onnxruntime' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_the_backend_gets_a_copy_of_stands_alone() -> None:
    copied = ROOT / "server" / "lychee_server" / "execution" / "onnx_sessions.py"
    assert {one.imported for one in imports_of(copied)} == {"onnxruntime"}


def test_commands_hold_no_model_libraries_before_they_run() -> None:
    code = (
        "import sys; from lychee_client.cli import add_commands, app; add_commands(app); "
        "print([name for name in ('torch', 'transformers', 'onnx', 'onnxruntime') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

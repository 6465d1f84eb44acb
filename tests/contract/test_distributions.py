"""Seven distributions: what they say of themselves, their version, and wheels that come whole from their sdists."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.parser import Parser
from importlib import import_module
from importlib.metadata import version as installed_version
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ["bulk", "client", "evaluate", "export", "loadtest", "server"]
NOT_IN_WHEELS = ("examples/demo", "examples/notebooks")
PLACES = {"lychee_server/backends": "server/backends", "lychee_server/bundled": "examples"}
"""Where a wheel's files lie in the tree, if not under the same name."""


def read_project(folder: str) -> dict[str, Any]:
    project: dict[str, Any] = tomllib.loads((ROOT / folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project


def load_version_module() -> Any:
    spec = importlib.util.spec_from_file_location("release_version", ROOT / "deploy" / "release" / "version.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("folder", [".", *FOLDERS])
def test_metadata_is_complete(folder: str) -> None:
    project = read_project(folder)
    assert project["dynamic"] == ["version"]
    assert {"authors", "classifiers", "description", "keywords", "license", "readme", "requires-python"} <= set(project)
    assert all((ROOT / folder / file).is_file() for file in [project["readme"], *project["license-files"]])
    assert (ROOT / folder / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    lowest = project["requires-python"].removeprefix(">=")
    pythons = [row.rpartition(" ")[2] for row in project["classifiers"] if re.search(r":: 3\.\d+$", row)]
    assert pythons == [f"3.{minor}" for minor in range(int(lowest.partition(".")[2]), 14)]


@pytest.mark.parametrize("folder", [".", *FOLDERS])
def test_every_requirement_has_a_lower_bound(folder: str) -> None:
    project = read_project(folder)
    required = [*project["dependencies"], *chain(*project.get("optional-dependencies", {}).values())]
    assert [requirement for requirement in required if ">=" not in requirement.partition(";")[0]] == []


def test_the_meta_distribution_has_the_clients_command_and_asks_for_extras_that_exist() -> None:
    meta = read_project(".")
    assert meta["scripts"] == read_project("client")["scripts"]  # pipx and uv expose no command of a dependency
    extras = {
        f"lychee-rerank-{folder}": set(read_project(folder).get("optional-dependencies", {})) for folder in FOLDERS
    }
    extras["lychee-rerank"] = set(meta["optional-dependencies"])
    assert {"all", "export", "gpu", "server"} <= extras["lychee-rerank"]
    for requirement in [*meta["dependencies"], *chain(*meta["optional-dependencies"].values())]:
        name, wanted = re.fullmatch(r"([\w-]+)(?:\[([\w,]+)\])?>=.*", requirement).groups("")  # type: ignore[union-attr]
        assert {extra for extra in wanted.split(",") if extra} <= extras[name]


@pytest.mark.parametrize("folder", FOLDERS)
def test_package_is_typed_and_knows_its_version(folder: str) -> None:
    package = f"lychee_{folder}"
    assert (ROOT / folder / package / "py.typed").is_file()
    assert import_module(package).__version__ == installed_version(f"lychee-rerank-{folder}")


def test_every_photo_of_the_wheel_has_its_licence_beside_it() -> None:
    notices = (ROOT / "server" / "THIRD_PARTY.md").read_text(encoding="utf-8")
    assert [path.name for path in (ROOT / "examples/catalogue/photos").iterdir() if path.name not in notices] == []


def test_version_is_the_tags_or_counts_commits_from_it() -> None:
    module = load_version_module()
    assert module.version("v0.3.0-0-g1aa5155") == "0.3.0"
    assert module.version("v0.3.0-12-g1aa5155") == "0.3.0.post12+g1aa5155"
    assert module.version(None) == module.RELEASE


def test_changelog_has_the_release_below_what_is_unreleased() -> None:
    headings = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings[0] == "[Unreleased]"
    assert re.fullmatch(rf"\[{re.escape(load_version_module().RELEASE)}\] - \d{{4}}-\d\d-\d\d", headings[1])


def test_version_of_a_copy_in_another_project_is_not_of_its_tags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = load_version_module()
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(tmp_path)]
    for command in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "a"], ["tag", "v9.0.0"]):
        subprocess.run([*git, *command], check=True)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    assert module.version(module.describe()) == "9.0.0"
    (tmp_path / "vendored").mkdir()
    monkeypatch.setattr(module, "ROOT", tmp_path / "vendored")
    assert module.describe() is None


@pytest.mark.slow
@pytest.mark.parametrize("folder", [".", *FOLDERS])
def test_wheel_from_the_sdist_holds_what_the_tree_holds(folder: str, tmp_path: Path) -> None:
    hatchling = [sys.executable, "-m", "hatchling", "build", "--directory", tmp_path, "--target"]
    subprocess.run([*hatchling, "sdist"], cwd=ROOT / folder, check=True, capture_output=True)
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as sdist:
        sdist.extractall(tmp_path, filter="data")
    (unpacked,) = (path for path in tmp_path.iterdir() if path.is_dir())
    subprocess.run([*hatchling, "wheel"], cwd=unpacked, check=True, capture_output=True)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        held = {name: wheel.read(name) for name in wheel.namelist() if ".dist-info/" not in name}
        (metadata,) = (
            Parser().parsestr(wheel.read(name).decode()) for name in wheel.namelist() if name.endswith("/METADATA")
        )
    project = read_project(folder)
    assert metadata["Version"] == unpacked.name.rpartition("-")[2]
    assert metadata.get_all("License-File") == project["license-files"]
    assert str(metadata.get_payload()).strip()
    expected = set()
    for place in [f"{folder}/lychee_{folder}", *(PLACES.values() if folder == "server" else ())]:
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", place]
        listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
        expected |= {
            name
            for name in listed
            if (ROOT / name).is_file()
            and not name.startswith(("examples/demo", "examples/kserve", "examples/notebooks"))
        }
    found = set()
    for name, content in held.items():
        inside = next(
            (place + name.removeprefix(prefix) for prefix, place in PLACES.items() if name.startswith(prefix)), None
        )
        path = inside or f"{folder}/{name}"
        assert (ROOT / path).read_bytes() == content, path
        found.add(path)
    assert found == (expected if folder != "." else set())

"""Where Triton is, and the backend directory that is made for it."""

from __future__ import annotations

import importlib.util
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from lychee_server import InstallationError, installation
from lychee_server.installation import STUB, TritonInstallation, assemble_backends

VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture
def wheel(tmp_path: Path) -> TritonInstallation:
    """Make the files of a wheel, all empty."""
    wheel = TritonInstallation("0.7.0", tmp_path / "site-packages")
    for folder in (wheel.library_directory,):
        folder.mkdir(parents=True)
    files = [wheel.binary, wheel.stub, wheel.root / "python_backend_stubs" / "3.10" / STUB]
    files += [wheel.root / "backends" / "python" / name for name in installation.PYTHON_BACKEND_FILES]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return wheel


def test_the_installed_wheel_is_complete_and_not_imported() -> None:
    assert TritonInstallation.find().stub.is_file()
    assert "pytriton" not in sys.modules


def test_a_missing_wheel_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        InstallationError, match=r"nvidia-pytriton.*is not installed.*pip install 'lychee-rerank-server\[triton\]'"
    ):
        TritonInstallation.find()


def test_a_python_without_a_stub_is_told_which_have_one(wheel: TritonInstallation) -> None:
    wheel.stub.unlink()
    with pytest.raises(InstallationError, match=rf"no stub for Python {VERSION}.*stubs for Python 3\.10;"):
        wheel.check()


@pytest.mark.parametrize("piece", ["binary", "library_directory"])
def test_a_missing_piece_is_named(wheel: TritonInstallation, piece: str) -> None:
    path: Path = getattr(wheel, piece)
    path.rename(path.with_name("elsewhere"))
    with pytest.raises(InstallationError, match=rf"incomplete: {path} is missing.*--force-reinstall"):
        wheel.check()


def test_the_environment_leads_the_stub_to_this_python(wheel: TritonInstallation, tmp_path: Path) -> None:
    environment = wheel.environment({"PATH": "/bin", "LD_LIBRARY_PATH": "/opt/lib", "KEPT": "1"}, tmp_path)
    assert environment["PATH"].split(os.pathsep) == [str(Path(sys.executable).parent), "/bin"]
    libraries = environment["LD_LIBRARY_PATH"].split(os.pathsep)
    assert (libraries[0], libraries[-1]) == (str(wheel.library_directory), "/opt/lib")
    assert (environment["LYCHEE_CACHE_DIR"], environment["KEPT"]) == (str(tmp_path), "1")


def test_a_python_without_a_shared_library_is_refused(
    wheel: TritonInstallation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(installation.ctypes, "CDLL", fail)
    monkeypatch.setattr(sys, "base_prefix", str(tmp_path))
    with pytest.raises(InstallationError, match=rf"libpython{VERSION}\.so\.1\.0.*apt-get install libpython"):
        wheel.environment({}, tmp_path)


def test_a_python_without_python3_beside_it_is_refused(
    wheel: TritonInstallation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(InstallationError, match=r"no python3 beside.*virtual environment"):
        wheel.environment({}, tmp_path)


def test_backends_are_assembled_once(wheel: TritonInstallation, tmp_path: Path) -> None:
    backends = assemble_backends(wheel, tmp_path / "cache")
    inode = backends.stat().st_ino
    files = {str(path.relative_to(backends)) for path in backends.rglob("*") if path.is_file()}
    assert files == {
        "onnxruntime/model.py",
        "onnxruntime/onnx_sessions.py",
        "python/libtriton_python.so",
        "python/triton_python_backend_stub",
        "python/triton_python_backend_utils.py",
    }
    assert assemble_backends(wheel, tmp_path / "cache").stat().st_ino == inode


def test_incomplete_backends_are_assembled_again(wheel: TritonInstallation, tmp_path: Path) -> None:
    backends = assemble_backends(wheel, tmp_path / "cache")
    (backends / "onnxruntime" / "model.py").unlink()
    assert (assemble_backends(wheel, tmp_path / "cache") / "onnxruntime" / "model.py").is_file()
    assert [path.name for path in backends.parent.iterdir()] == [backends.name]


def test_another_backend_file_gets_another_folder(
    wheel: TritonInstallation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = assemble_backends(wheel, tmp_path / "cache")
    changed = tmp_path / "model.py"
    changed.write_text("# changed", encoding="utf-8")
    monkeypatch.setattr(installation, "find_backend_model", lambda: changed)
    second = assemble_backends(wheel, tmp_path / "cache")
    assert first != second
    assert (second / "onnxruntime" / "model.py").read_text(encoding="utf-8") == "# changed"


def test_concurrent_starts_share_one_folder(wheel: TritonInstallation, tmp_path: Path) -> None:
    for cache in [tmp_path / f"cache{number}" for number in range(30)]:  # one round seldom shows a race
        with ThreadPoolExecutor(16) as pool:
            folders = set(pool.map(assemble_backends, [wheel] * 32, [cache] * 32))
        (folder,) = folders
        assert [path.name for path in folder.parent.iterdir()] == [folder.name]

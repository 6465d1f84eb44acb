"""The Triton that the `nvidia-pytriton` wheel carries, and the backend directory that it is started with."""

import ctypes
import fcntl
import hashlib
import importlib.metadata
import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lychee_server.errors import InstallationError
from lychee_server.triton_tracing import trace_environment

WHEEL = "nvidia-pytriton"
STUB = "triton_python_backend_stub"
PYTHON_BACKEND_FILES = ("libtriton_python.so", "triton_python_backend_utils.py")


@dataclass(frozen=True)
class TritonInstallation:
    """Where the wheel's files are. The package itself is never imported: that would take a second."""

    version: str
    site_packages: Path

    @classmethod
    def find(cls) -> "TritonInstallation":
        """Find the wheel in the running environment.

        Raises:
            InstallationError: The wheel, or a file of it, is missing, or has no stub for this Python.
        """
        spec = importlib.util.find_spec("pytriton")
        if spec is None or spec.origin is None:
            raise InstallationError(
                f"The package {WHEEL}, which carries Triton, is not installed for {sys.executable}. "
                "Run: pip install 'lychee-rerank-server[triton]'"
            )
        installation = cls(importlib.metadata.version(WHEEL), Path(spec.origin).parents[1])
        installation.check()
        return installation

    @property
    def root(self) -> Path:
        """The wheel's Triton folder."""
        return self.site_packages / "pytriton" / "tritonserver"

    @property
    def binary(self) -> Path:
        """The server's executable."""
        return self.root / "bin" / "tritonserver"

    @property
    def library_directory(self) -> Path:
        """The shared libraries that the binary and the stub need."""
        return self.site_packages / "nvidia_pytriton.libs"

    @property
    def stub(self) -> Path:
        """The stub, the process around the Python backend, for the running Python."""
        return self.root / "python_backend_stubs" / _python_version() / STUB

    def check(self) -> None:
        """Check that every piece is there.

        Raises:
            InstallationError: A piece is missing.
        """
        if not self.stub.is_file():
            versions = sorted(
                (path.parent.name for path in self.root.glob(f"python_backend_stubs/*/{STUB}")),
                key=lambda version: [int(part) for part in version.split(".")],
            )
            raise InstallationError(
                f"{WHEEL} {self.version} has no stub for Python {_python_version()}: {self.stub} is missing. "
                f"It has stubs for Python {', '.join(versions) or '(none)'}; make the environment with one of them."
            )
        pieces = [self.binary, self.library_directory]
        pieces += [self.root / "backends" / "python" / name for name in PYTHON_BACKEND_FILES]
        for piece in pieces:
            if not piece.exists():
                raise InstallationError(
                    f"{WHEEL} {self.version} is incomplete: {piece} is missing. "
                    f"Run `pip install --force-reinstall --no-deps {WHEEL}=={self.version}`."
                )

    def environment(self, base: Mapping[str, str], cache_dir: Path) -> dict[str, str]:
        """Return the environment variables for the server and its stubs.

        The stub embeds Python in isolated mode: it ignores PYTHONPATH and PYTHONHOME, and finds its packages from the
        first `python3` on PATH, virtual environments included.

        Raises:
            InstallationError: The interpreter has no shared library, or no `python3` beside it.
        """
        interpreter = Path(sys.executable)
        if not (interpreter.parent / "python3").exists():
            raise InstallationError(
                f"There is no python3 beside {interpreter}, so Triton's stub would find another Python. "
                "Run lychee from a virtual environment."
            )
        library_path = [str(self.library_directory), *_libpython_directory(), base.get("LD_LIBRARY_PATH", "")]
        return {
            **base,
            "PATH": os.pathsep.join([str(interpreter.parent), base.get("PATH", os.defpath)]),
            "LD_LIBRARY_PATH": os.pathsep.join(part for part in library_path if part),
            "LYCHEE_CACHE_DIR": str(cache_dir),
            **trace_environment(base),
        }


def assemble_backends(installation: TritonInstallation, cache_dir: Path) -> Path:
    """Return a backend directory with the Python backend and ours, built in the cache folder if it is not there.

    Safe when several processes start at the same time: the folder appears complete or not at all.

    Raises:
        InstallationError: Our backend's file is missing.
    """
    own = (find_backend_model(), Path(__file__).parent / "execution" / "onnx_sessions.py")
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in own)).hexdigest()[:12]
    target = cache_dir / "backends" / f"{installation.version}-py{_python_version()}-{digest}"
    sources = {
        **{f"python/{name}": installation.root / "backends" / "python" / name for name in PYTHON_BACKEND_FILES},
        f"python/{STUB}": installation.stub,
        **{f"onnxruntime/{path.name}": path for path in own},
    }
    if all((target / name).is_file() for name in sources):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with _locked(target.parent), tempfile.TemporaryDirectory(dir=target.parent, prefix=".building-") as building:
        if all((target / name).is_file() for name in sources):  # another process was faster
            return target
        for name, source in sources.items():
            copy = Path(building) / "new" / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, copy)
        if target.exists():  # incomplete: somebody removed a file
            os.rename(target, Path(building) / "old")
        os.rename(Path(building) / "new", target)
    return target


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder's advisory lock, which ends with the process at the latest."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def find_backend_model() -> Path:
    """Return our backend's file, from the source tree or from the installed package.

    Raises:
        InstallationError: It is in neither place.
    """
    package = Path(__file__).parent
    candidates = [folder / "backends" / "onnxruntime" / "model.py" for folder in (package.parent, package)]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise InstallationError(
        f"The onnxruntime backend is missing: neither {candidates[0]} nor {candidates[1]} exists. "
        "Install lychee-rerank-server again."
    )


def _python_version() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def _libpython_directory() -> list[str]:
    """Return the folder of the interpreter's shared library; empty if the system's loader finds it by itself."""
    name = f"libpython{_python_version()}.so.1.0"
    folder = Path(sys.base_prefix) / "lib"
    if (folder / name).is_file():
        return [str(folder)]
    try:
        ctypes.CDLL(name)
    except OSError as error:
        raise InstallationError(
            f"Triton's stub needs {name}, and the Python in {sys.base_prefix} was built without it "
            f"({error}). On Debian and Ubuntu: `apt-get install libpython{_python_version()}`; with pyenv: install "
            "Python again with PYTHON_CONFIGURE_OPTS=--enable-shared."
        ) from error
    return []

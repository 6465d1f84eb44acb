"""Where the server side keeps its files, and the defaults that users can override."""

import logging
import os
import tempfile
from pathlib import Path

import platformdirs

from lychee_server.errors import FolderError

_logger = logging.getLogger("lychee_server")

APPLICATION = "lychee-rerank"
MIB = 2**20
CACHE_NEEDS_BYTES = 16 * MIB  # Triton's Python backend, with its stub
STATE_NEEDS_BYTES = MIB
DEFAULT_HOST = "127.0.0.1"
DEFAULT_HTTP_PORT = 8000
DEFAULT_GRPC_PORT = 8001
DEFAULT_METRICS_PORT = 8002
DEFAULT_LOAD_TIMEOUT_S = 180.0
DEFAULT_STOP_TIMEOUT_S = 15.0
GATEWAY_STOP_TIMEOUT_S = 40.0  # more than the gateway gives the calls in flight


def cache_dir() -> Path:
    """Return the folder for what can be rebuilt: the backend directory, compiled models."""
    return Path(os.environ.get("LYCHEE_CACHE_DIR") or platformdirs.user_cache_path(APPLICATION)).absolute()


def usable_cache_dir() -> Path:
    """Return the cache folder, or one among the temporary files where that one cannot be written.

    Raises:
        FolderError: Neither can be.
    """
    folder = cache_dir()
    try:
        make_folder(folder, "LYCHEE_CACHE_DIR", CACHE_NEEDS_BYTES)
    except FolderError as error:
        instead = Path(tempfile.gettempdir()) / f"{APPLICATION}-{os.getuid()}"
        make_folder(instead, "LYCHEE_CACHE_DIR", CACHE_NEEDS_BYTES, mode=0o700)
        _logger.warning("%s %s takes its place", error, instead)
        return instead
    return folder


def make_folder(folder: Path, variable: str, needs_bytes: int = STATE_NEEDS_BYTES, *, mode: int = 0o777) -> None:
    """Make a folder, and see that so much can be written there.

    Args:
        folder: The folder to make, with those above it.
        variable: The environment variable that names another one.
        needs_bytes: How much will be written there.
        mode: The permissions of the folder itself.

    Raises:
        FolderError: It cannot be made or written, or is full.
    """
    try:
        folder.mkdir(mode=mode, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            os.posix_fallocate(file.fileno(), 0, needs_bytes)
    except OSError as error:
        raise FolderError(
            f"{folder} cannot be written ({error.strerror}); expected a folder with {needs_bytes / MIB:g} MiB free. "
            f"Free space or mend its permissions, or name another one in {variable}."
        ) from error


def state_dir() -> Path:
    """Return the folder for what is true of the running server: its state file, its log."""
    return Path(os.environ.get("LYCHEE_STATE_DIR") or platformdirs.user_state_path(APPLICATION)).absolute()

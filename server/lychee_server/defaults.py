"""Where the server side keeps its files, and the defaults that users can override."""

import logging
import os
import tempfile
from pathlib import Path

import platformdirs

_logger = logging.getLogger("lychee_server")

APPLICATION = "lychee-rerank"
MIB = 2**20
DEFAULT_HOST = "127.0.0.1"
DEFAULT_HTTP_PORT = 8000
DEFAULT_GRPC_PORT = 8001
DEFAULT_METRICS_PORT = 8002
DEFAULT_CACHE_SIZE_MB = 64
DEFAULT_LOAD_TIMEOUT_S = 180.0
DEFAULT_STOP_TIMEOUT_S = 15.0
GATEWAY_STOP_TIMEOUT_S = 40.0  # more than the gateway gives the calls in flight


def cache_dir() -> Path:
    """Return the folder for what can be rebuilt: the backend directory, compiled models."""
    return Path(os.environ.get("LYCHEE_CACHE_DIR") or platformdirs.user_cache_path(APPLICATION)).absolute()


def usable_cache_dir() -> Path:
    """Return the cache folder, or one among the temporary files where that one cannot be written."""
    folder = cache_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        instead = Path(tempfile.gettempdir()) / f"{APPLICATION}-{os.getuid()}"
        instead.mkdir(mode=0o700, exist_ok=True)
        _logger.warning("%s cannot be written (%s); %s takes its place", folder, error.strerror, instead)
        return instead


def state_dir() -> Path:
    """Return the folder for what is true of the running server: its state file, its log."""
    return Path(os.environ.get("LYCHEE_STATE_DIR") or platformdirs.user_state_path(APPLICATION)).absolute()

"""Run NVIDIA Triton with a lychee-rerank repository."""

from importlib.metadata import version

from lychee_server.errors import (
    AlreadyRunningError,
    InstallationError,
    LycheeServerError,
    PortInUseError,
    RepositoryError,
    ServerStartError,
)
from lychee_server.triton import TritonServer

__all__ = [
    "AlreadyRunningError",
    "InstallationError",
    "LycheeServerError",
    "PortInUseError",
    "RepositoryError",
    "ServerStartError",
    "TritonServer",
    "__version__",
]

__version__ = version("lychee-rerank-server")

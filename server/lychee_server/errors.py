"""What can go wrong between `lychee load` and a ready server."""

from collections.abc import Mapping, Sequence
from pathlib import Path


class LycheeServerError(Exception):
    """Base of all errors of this package. The message says what to do; commands end with the exit code."""

    exit_code = 1


class InstallationError(LycheeServerError):
    """Triton, or a piece of it that this Python needs, is not installed."""

    exit_code = 2


class FolderError(LycheeServerError):
    """A folder of ours cannot be made or written, or is full."""


class RepositoryError(LycheeServerError):
    """The model repository is missing, empty or incomplete."""

    exit_code = 2


class DeviceError(LycheeServerError):
    """A GPU was asked for, and none can be used."""


class SettingsError(LycheeServerError, ValueError):
    """An option or a setting cannot be used; nothing was started."""

    exit_code = 2


class PortInUseError(LycheeServerError):
    """Another process holds a port."""

    def __init__(self, message: str, *, port: int) -> None:
        """Keep the port beside the message."""
        super().__init__(message)
        self.port = port


class AlreadyRunningError(LycheeServerError):
    """A server of this state folder runs already, or is being started."""


class ServerStartError(LycheeServerError):
    """Triton ended while loading, did not get ready in time, or could not load a model."""

    def __init__(
        self,
        message: str,
        *,
        log_path: Path,
        log_lines: Sequence[str] = (),
        model_reasons: Mapping[str, str] | None = None,
    ) -> None:
        """Keep the log's last error lines, and the reason of each model that failed, beside the message."""
        details = [f"  {name}: {reason}" for name, reason in (model_reasons or {}).items()]
        details += [f"  {line}" for line in log_lines]
        super().__init__("\n".join([message, *details, f"Log: {log_path}"]))
        self.log_path = log_path
        self.log_lines = tuple(log_lines)
        self.model_reasons = dict(model_reasons or {})

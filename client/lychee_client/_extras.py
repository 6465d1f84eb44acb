"""Optional dependencies: asked for by name, with the command that installs them."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Final

from lychee_client._errors import ConfigurationError

CALIBRATION_MODULES: Final = ("sklearn", "scipy", "matplotlib")


def require_calibration_extra() -> None:
    """Make sure that the libraries for statistics and plots are installed; imports none of them.

    Raises:
        ConfigurationError: One is missing.
    """
    missing = [name for name in CALIBRATION_MODULES if find_spec(name) is None]
    if missing:
        raise ConfigurationError(
            f"calibration needs {', '.join(missing)}, not installed here; "
            "run: pip install 'lychee-rerank-client[calibration]'"
        )

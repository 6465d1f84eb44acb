"""Packages that only commands need: they are no part of the distribution without its extra."""

from __future__ import annotations

from importlib.util import find_spec

from lychee_client import ConfigurationError


def require(package: str, purpose: str) -> None:
    """Check that a package is there before the work begins.

    Raises:
        ConfigurationError: It is not installed.
    """
    if find_spec(package) is None:
        raise ConfigurationError(
            f"{package} is not installed, which {purpose}; run: pip install 'lychee-rerank-evaluate[cli]'"
        )

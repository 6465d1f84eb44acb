"""What a client is configured with: argument beats environment beats default."""

from __future__ import annotations

import enum
import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import platformdirs

from lychee_client._errors import ConfigurationError
from lychee_client.thresholds import Policy, get_policy

DEFAULT_URL: Final = "localhost:8001"
DEFAULT_TIMEOUT_S: Final = 30.0
DEFAULT_POLICY: Final = "balanced"

_ADDRESS = re.compile(r"(?P<host>\[[0-9a-fA-F:.%]+\]|[^\s:/\[\]]+):(?P<port>[0-9]{1,5})")


class Unset(enum.Enum):
    """Type of UNSET, which means "use the default" where None already means "off"."""

    UNSET = enum.auto()

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Final = Unset.UNSET


@dataclass(frozen=True, slots=True)
class ClientConfig:
    """Checked settings of one client.

    Args:
        url: "HOST:PORT" of the server's gRPC endpoint, without a scheme.
        timeout_s: Seconds for one whole call. None waits forever.
        policy: Thresholds that turn scores into decisions.

    Raises:
        ConfigurationError: The address or the timeout cannot be used.
    """

    url: str
    timeout_s: float | None
    policy: Policy

    def __post_init__(self) -> None:
        match = _ADDRESS.fullmatch(self.url)
        if match is None or not 1 <= int(match["port"]) <= 65535:
            raise ConfigurationError(
                f"url is {self.url!r}; expected HOST:PORT without a scheme and with a port from 1 to 65535, "
                f"for example {DEFAULT_URL!r} (the gRPC port)"
            )
        check_timeout(self.timeout_s)


def check_timeout(timeout_s: float | None) -> None:
    """Accept None or a positive, finite number of seconds.

    Raises:
        ConfigurationError: It is anything else.
    """
    if timeout_s is None:
        return
    if not isinstance(timeout_s, (int, float)) or not math.isfinite(timeout_s) or timeout_s <= 0:
        raise ConfigurationError(
            f"timeout_s is {timeout_s!r}; expected a positive number of seconds, or None to wait forever"
        )


def load_config(
    url: str | None = None, timeout_s: float | Unset | None = UNSET, policy: str | Policy = DEFAULT_POLICY
) -> ClientConfig:
    """Combine arguments, LYCHEE_URL and LYCHEE_TIMEOUT_S, and the defaults.

    Raises:
        ConfigurationError: A value cannot be used; the message says where it came from.
    """
    if url is None:
        url = os.environ.get("LYCHEE_URL") or DEFAULT_URL
    if isinstance(timeout_s, Unset):
        timeout_s = _environment_timeout_s()
    return ClientConfig(url, timeout_s, get_policy(policy))


def _environment_timeout_s() -> float:
    value = os.environ.get("LYCHEE_TIMEOUT_S")
    if not value:
        return DEFAULT_TIMEOUT_S
    try:
        return float(value)
    except ValueError as error:
        raise ConfigurationError(f"LYCHEE_TIMEOUT_S is {value!r}; expected a number of seconds") from error


def cache_dir() -> Path:
    """Return the folder for downloaded tokenizers: LYCHEE_CACHE_DIR, or the user's cache folder."""
    override = os.environ.get("LYCHEE_CACHE_DIR")
    return Path(override) if override else platformdirs.user_cache_path("lychee-rerank")

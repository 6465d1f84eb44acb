"""What a client is configured with: argument beats environment beats default."""

from __future__ import annotations

import enum
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final

import platformdirs

from lychee_client._errors import ConfigurationError
from lychee_client._retry import DEFAULT_MAX_RETRIES, RetryPolicy
from lychee_client.calibration import Calibration
from lychee_client.thresholds import Policy, get_policy
from lychee_client.transports.connection import Connection, TlsConfig
from lychee_client.transports.shared_memory import SharedMemoryPool
from lychee_client.triton_key import key_headers

DEFAULT_URL: Final = "localhost:8001"
SCHEMES: Final = ("grpc", "grpcs", "http", "https")
DEFAULT_TIMEOUT_S: Final = 30.0
DEFAULT_POLICY: Final = "balanced"
NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})

_ADDRESS = r"(?:\[[0-9a-fA-F:.%]+\]|[^\s:/?#@\[\],]+)(?::[0-9]{1,5})?"
_URL = re.compile(
    rf"(?:(?P<scheme>[a-z]+)://)?(?P<addresses>{_ADDRESS}(?:,(?:(?P=scheme)://)?{_ADDRESS})*)(?P<path>(?:/[^\s/?#]+)*)/?"
)
_PORT = re.compile(r":([0-9]+)$")
_DNS = "dns:///"  # gRPC's word for a name with several addresses, which any name may have
_VERSIONS = ("/v1", "/v2")  # base URLs of other clients end with one

_HEADER_NAME = re.compile("[A-Za-z0-9_-]+")
_REQUEST_ID = re.compile("[!-~]{1,128}")
_API_KEY = re.compile("[!-~]+")
_MODEL = re.compile(r"[^\s\x00-\x1f\x7f](?:[^\x00-\x1f\x7f]{0,254}[^\s\x00-\x1f\x7f])?")


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
        url: "HOST:PORT" or "grpc://HOST:PORT" for gRPC, "http://HOST:PORT" for HTTP; "grpcs" and "https" with TLS. A
            gateway's may lack the port and have a path. Replicas are the addresses of a name, or a list: "a:1,b:1".
        timeout_s: Seconds for one whole call. None waits forever.
        policy: What turns scores into decisions.
        max_img_size: The most pixels of one image, as the side of a square, for a model that reads images in their own
            size. None keeps to what the model was exported with.
        tls: The certificates, for "grpcs" and "https" only. None takes the defaults of the two.
        headers: The headers that every request carries, as gRPC metadata or HTTP headers.
        keepalive_s: See Connection.
        max_retries: See RetryPolicy.
        shared_memory: Whether larger tensors travel through shared memory; the server must then be on this host.
        api_key: The key that opens a gateway; sent to nothing else, and never shown.
        model: The name of the model that is meant. None means the one that answers calls without a name.

    Raises:
        ConfigurationError: One of them cannot be used.
    """

    url: str
    timeout_s: float | None
    policy: Policy | Calibration
    max_img_size: int | None = None
    tls: TlsConfig | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    keepalive_s: float | None = None
    max_retries: int = DEFAULT_MAX_RETRIES
    shared_memory: bool = False
    api_key: str | None = field(default=None, repr=False)
    model: str | None = None

    def __post_init__(self) -> None:
        match = _match(self.url)
        known = match is not None and match["scheme"] in (None, *SCHEMES)
        in_range = all(port is None or 1 <= port <= 65535 for port in self._ports)
        if not (known and in_range) or (self.is_grpc and not self.may_be_triton):
            raise ConfigurationError(
                f"url is {self.url!r}; expected HOST:PORT, alone (gRPC) or after one of "
                f"{', '.join(f'{scheme}://' for scheme in SCHEMES)}, with a port from 1 to 65535, "
                f"for example {DEFAULT_URL!r} (the gRPC port); the http:// or https:// URL of a gateway needs no port "
                "and may have a path, and replicas stand in one list: a:8001,b:8001"
            )
        if self.shared_memory and len(self.addresses) > 1:
            raise ConfigurationError(
                f"shared_memory is on and url is {self.url!r}; expected the address of one server on this host"
            )
        if self.tls is not None and self.scheme not in ("grpcs", "https"):
            raise ConfigurationError(f"tls is given, but url is {self.url!r}; expected grpcs:// or https://")
        for name, value in self.headers.items():
            printable = isinstance(value, str) and value.isascii() and value.isprintable()
            if not printable or not _HEADER_NAME.fullmatch(name):  # the value may be a secret: not in the message
                raise ConfigurationError(
                    f"header {name!r} cannot be sent; expected a name of letters, digits, - and _, and as its value "
                    "a str of printable ASCII characters"
                )
        key = self.api_key
        if key is not None and not (isinstance(key, str) and _API_KEY.fullmatch(key)):
            raise ConfigurationError(
                "api_key (or LYCHEE_API_KEY) cannot be sent in a header; expected printable ASCII without spaces"
            )
        if self.model is not None and not (isinstance(self.model, str) and _MODEL.fullmatch(self.model)):
            raise ConfigurationError(
                f"model (or LYCHEE_MODEL) is {self.model!r:.200}; expected the name of a model that is served, of 1 to "
                "256 printable characters, or None for the server's own choice"
            )
        check_timeout(self.timeout_s)
        size = self.max_img_size
        if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 1):
            raise ConfigurationError(
                f"max_img_size is {size!r}; expected the side of a square in pixels, for example 384, or None for the "
                "model's own limit"
            )
        if self.keepalive_s is not None and not self.keepalive_s > 0:
            raise ConfigurationError(f"keepalive_s is {self.keepalive_s!r}; expected a positive number of seconds")
        RetryPolicy(self.max_retries)

    @property
    def scheme(self) -> str:
        """One of SCHEMES."""
        return self.url.partition("://")[0] if "://" in self.url.removeprefix(_DNS) else SCHEMES[0]

    @property
    def is_grpc(self) -> bool:
        """Whether the URL is one of gRPC."""
        return self.scheme.startswith("grpc")

    @property
    def may_be_triton(self) -> bool:
        """Whether the URL has a port everywhere and no path. Another one can only be a gateway's."""
        match = _match(self.url)
        return match is not None and None not in self._ports and not _path_of(match)

    @property
    def addresses(self) -> tuple[str, ...]:
        """The addresses in the URL, each once: "HOST:PORT"; of a gateway the port may be missing."""
        match = _match(self.url)
        listed = () if match is None else match["addresses"].split(",")
        return tuple(dict.fromkeys(address.rpartition("://")[2] for address in listed))

    @property
    def _ports(self) -> tuple[int | None, ...]:
        found = (_PORT.search(address) for address in self.addresses)
        return tuple(None if port is None else int(port[1]) for port in found)

    def make_connection(self, pool: SharedMemoryPool | None, address: str | None = None) -> Connection:
        """Return what a transport needs to reach one of the addresses; None takes the first."""
        match = _match(self.url)
        assert match is not None
        address, path = address or self.addresses[0], _path_of(match)
        tls = (self.tls or TlsConfig()) if self.scheme.endswith("s") else None
        keys = {name: value for name, value in key_headers(address).items() if name not in self.headers}
        return Connection(self.url, address, tls, self.headers, self.keepalive_s, pool, path, keys)


def _match(url: str) -> re.Match[str] | None:
    match = _URL.fullmatch(url.removeprefix(_DNS))
    return None if match is not None and match["scheme"] and url.startswith(_DNS) else match


def _path_of(url: re.Match[str]) -> str:
    """Return the path below which a server's API begins."""
    path = url["path"]
    return path[:-3] if path.endswith(_VERSIONS) else path


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


def check_request_id(request_id: object) -> None:
    """Accept None or 1 to 128 printable ASCII characters without spaces.

    Raises:
        ConfigurationError: It is anything else.
    """
    if request_id is not None and not (isinstance(request_id, str) and _REQUEST_ID.fullmatch(request_id)):
        raise ConfigurationError(
            f"request_id is {request_id!r:.200}; expected 1 to 128 printable ASCII characters without spaces, or None"
        )


def load_config(
    url: str | None = None,
    timeout_s: float | Unset | None = UNSET,
    policy: str | Policy | Calibration = DEFAULT_POLICY,
    max_img_size: int | Unset | None = UNSET,
    tls: TlsConfig | None = None,
    headers: Mapping[str, str] = NO_HEADERS,
    keepalive_s: float | None = None,
    max_retries: int = DEFAULT_MAX_RETRIES,
    shared_memory: bool = False,
    api_key: str | None = None,
    model: str | Unset | None = UNSET,
) -> ClientConfig:
    """Combine arguments; the variables LYCHEE_URL, _TIMEOUT_S, _MAX_IMG_SIZE, _API_KEY and _MODEL; and the defaults.

    Raises:
        ConfigurationError: A value cannot be used; the message says where it came from.
    """
    if url is None:
        url = os.environ.get("LYCHEE_URL") or DEFAULT_URL
    if isinstance(timeout_s, Unset):
        timeout_s = _environment_timeout_s()
    if isinstance(max_img_size, Unset):
        max_img_size = _environment_max_img_size()
    if isinstance(model, Unset):
        model = os.environ.get("LYCHEE_MODEL") or None
    thresholds = policy if isinstance(policy, Calibration) else get_policy(policy)
    return ClientConfig(
        url,
        timeout_s,
        thresholds,
        max_img_size,
        tls,
        headers,
        keepalive_s,
        max_retries,
        shared_memory,
        api_key or os.environ.get("LYCHEE_API_KEY") or None,
        model,
    )


def _environment_timeout_s() -> float:
    value = os.environ.get("LYCHEE_TIMEOUT_S")
    if not value:
        return DEFAULT_TIMEOUT_S
    try:
        return float(value)
    except ValueError as error:
        raise ConfigurationError(f"LYCHEE_TIMEOUT_S is {value!r}; expected a number of seconds") from error


def _environment_max_img_size() -> int | None:
    value = os.environ.get("LYCHEE_MAX_IMG_SIZE")
    if not value:
        return None
    try:
        return int(value)
    except ValueError as error:
        raise ConfigurationError(
            f"LYCHEE_MAX_IMG_SIZE is {value!r}; expected the side of a square in pixels, for example 384"
        ) from error


def cache_dir() -> Path:
    """Return the folder for downloaded tokenizers: LYCHEE_CACHE_DIR, or the user's cache folder."""
    override = os.environ.get("LYCHEE_CACHE_DIR")
    return Path(override) if override else platformdirs.user_cache_path("lychee-rerank")

"""What a gateway is configured with, checked before anything starts."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from lychee_client import POLICIES

from lychee_server.errors import SettingsError

DEFAULT_TRITON_URL: Final = "localhost:8001"
DEFAULT_HOST: Final = "127.0.0.1"
DEFAULT_PORT: Final = 7860
DEFAULT_POLICY: Final = "balanced"
DEFAULT_TIMEOUT_S: Final = 30.0
DEFAULT_MAX_REQUEST_MB: Final = 64
DEFAULT_MAX_DOCUMENTS: Final = 1000
DEFAULT_MAX_CONCURRENCY: Final = 8
DEFAULT_MAX_WAITING: Final = 64
DEFAULT_CACHE_MB: Final = 256
DEFAULT_HEALTH_LATENCY_MS: Final = 5000.0
DEFAULT_DRAIN_TIMEOUT_S: Final = 30.0

LogLevel = Literal["ERROR", "WARNING", "INFO", "DEBUG"]


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """Checked settings of one gateway.

    Args:
        triton_url: The URL of the Triton server, as LycheeClient takes it.
        triton_metrics_url: The URL of its Prometheus metrics; nothing reads it at present.
        host: The address to listen on.
        port: The port to listen on; 0 picks a free one.
        web: Whether to serve the page too.
        max_img_size: See LycheeClient.
        policy: The name of the policy that decides where a request names none.
        calibration_path: The file of `lychee calibrate` that decides instead; `policy` is ignored then.
        timeout_s: How many seconds a call may take where a request names no timeout, and the most that it may name.
        api_keys: The keys that open the gateway. Empty, without a file of keys: it is open to everyone who reaches it.
        api_keys_path: A file with one key per line, beside `api_keys`.
        image_hosts: The hosts whose http(s) image URLs are fetched; "*.example.org" means every subdomain. Empty: none,
            only data URLs are read.
        max_request_mb: The largest body of a request, in 2**20 bytes.
        max_documents: The most documents of one request.
        max_concurrency: How many calls are computed at the same time.
        max_waiting: How many calls may wait for their turn; what comes on top is answered with 429.
        cache_mb: The size of the embedding cache in 2**20 bytes; 0 switches it off.
        redis_url: The URL of a Redis, shared by several gateways, that keeps the embeddings; None: this process does.
        health_latency_ms: A scored pair that takes longer makes the gateway `degraded`.
        drain_timeout_s: How many seconds calls in flight get to finish when the gateway stops.
        log_level: What is logged, as JSON lines on standard output.
        error_log_path: A file that gets the errors too, for shipping; None: standard error.
        log_content: Whether to write texts into the logs. Images and keys are never written.
        root_path: The path under which a proxy serves the gateway, for example "/rerank".

    Raises:
        SettingsError: One of them cannot be used.
    """

    triton_url: str = DEFAULT_TRITON_URL
    triton_metrics_url: str | None = None
    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    web: bool = True
    max_img_size: int | None = None
    policy: str = DEFAULT_POLICY
    calibration_path: Path | None = None
    timeout_s: float = DEFAULT_TIMEOUT_S
    api_keys: tuple[str, ...] = ()
    api_keys_path: Path | None = None
    image_hosts: tuple[str, ...] = ()
    max_request_mb: int = DEFAULT_MAX_REQUEST_MB
    max_documents: int = DEFAULT_MAX_DOCUMENTS
    max_concurrency: int = DEFAULT_MAX_CONCURRENCY
    max_waiting: int = DEFAULT_MAX_WAITING
    cache_mb: int = DEFAULT_CACHE_MB
    redis_url: str | None = None
    health_latency_ms: float = DEFAULT_HEALTH_LATENCY_MS
    drain_timeout_s: float = DEFAULT_DRAIN_TIMEOUT_S
    log_level: LogLevel = "INFO"
    error_log_path: Path | None = None
    log_content: bool = False
    root_path: str = ""

    def __post_init__(self) -> None:
        if self.policy not in POLICIES:
            raise SettingsError(f"--policy is {self.policy!r}; expected one of {', '.join(POLICIES)}")
        for name, least in (
            ("max_request_mb", 1),
            ("max_documents", 1),
            ("max_concurrency", 1),
            ("max_waiting", 0),
            ("cache_mb", 0),
        ):
            value = getattr(self, name)
            if value < least:
                raise SettingsError(f"--{name.replace('_', '-')} is {value}; expected at least {least}")
        for name in ("timeout_s", "health_latency_ms", "drain_timeout_s"):
            value = getattr(self, name)
            if not 0 < value < float("inf"):
                raise SettingsError(f"--{name.replace('_', '-')} is {value}; expected a positive, finite number")
        for host in self.image_hosts:
            _check_image_host(host)
        if self.root_path and (not self.root_path.startswith("/") or self.root_path.endswith("/")):
            raise SettingsError(f"--root-path is {self.root_path!r}; expected a path such as /rerank")


def _check_image_host(host: str) -> None:
    """Accept a host name or `*.` and a domain.

    Raises:
        SettingsError: It is a URL, an address, or a wildcard for everything.
    """
    name = host.removeprefix("*.")
    try:
        ipaddress.ip_address(name)
        is_address = True
    except ValueError:
        is_address = False
    labels = name.split(".")
    if is_address or not all(label and label.replace("-", "").isalnum() for label in labels):
        raise SettingsError(
            f"--image-host is {host!r}; expected a host name such as images.example.org, or *.example.org for every "
            "subdomain, without scheme, port or path, and no address"
        )

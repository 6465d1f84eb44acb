"""What a transport needs to reach one server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lychee_client._errors import ConfigurationError
from lychee_client.transports.shared_memory import SharedMemoryPool

if TYPE_CHECKING:
    import ssl


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """How the server proves who it is and, with mutual TLS, how the client does. All files are PEM.

    Args:
        ca_path: The file with the certificates of the authorities to trust. None takes those that the system (HTTP) or
            gRPC brings along.
        certificate_path: The file with the client's own certificate chain, where the server asks for one.
        key_path: The file with the private key of that certificate; it goes with `certificate_path`.

    Raises:
        ConfigurationError: A file cannot be read, or certificate and key are not given together.
    """

    ca_path: Path | str | None = None
    certificate_path: Path | str | None = None
    key_path: Path | str | None = None

    def __post_init__(self) -> None:
        if (self.certificate_path is None) != (self.key_path is None):
            raise ConfigurationError("tls has only one of certificate_path and key_path; expected both or none")
        self.ssl_context()  # so that a wrong file fails here, with either protocol

    def read(self) -> tuple[bytes | None, bytes | None, bytes | None]:
        """Return the contents of the files: authorities, chain, key."""
        return _read(self.ca_path), _read(self.certificate_path), _read(self.key_path)

    def ssl_context(self) -> ssl.SSLContext:
        """Return the same for Python's TLS.

        Raises:
            ConfigurationError: A file is not what it should be.
        """
        import ssl  # few connections need it

        try:
            context = ssl.create_default_context(cafile=None if self.ca_path is None else str(self.ca_path))
            if self.certificate_path is not None:
                context.load_cert_chain(
                    str(self.certificate_path), None if self.key_path is None else str(self.key_path)
                )
        except (ssl.SSLError, OSError) as error:
            raise ConfigurationError(f"{self} cannot be used: {error}; expected PEM files that fit together") from error
        return context


@dataclass(frozen=True, slots=True)
class Connection:
    """Where and how to connect.

    Attributes:
        url: The URL as the user wrote it, for messages.
        address: The server's address, "HOST:PORT"; of a gateway the port may be missing.
        path: The path below which a proxy serves a gateway; empty without one.
        tls: How TLS is set up; None connects without TLS.
        headers: The headers that every request carries.
        triton_headers: The headers that requests to Triton carry, and those to a gateway do not.
        ip: Which address of the host to connect to; None leaves that to the protocol. Names in TLS and headers stay
            the host's.
        keepalive_s: Seconds after which gRPC sends a ping on an idle connection, and HTTP closes it. With None gRPC
            never sends one, and HTTP closes it after 15 seconds.
        shared_memory: The shared memory for larger tensors; None sends all of them.
    """

    url: str
    address: str
    tls: TlsConfig | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    keepalive_s: float | None = None
    shared_memory: SharedMemoryPool | None = None
    path: str = ""
    triton_headers: Mapping[str, str] = field(default_factory=dict)
    ip: str | None = None


def _read(path: Path | str | None) -> bytes | None:
    if path is None:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigurationError(f"tls: {path} cannot be read: {error.strerror}; expected a PEM file") from error

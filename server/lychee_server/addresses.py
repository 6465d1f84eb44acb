"""Addresses and ports that a server is to listen on: told apart before anything starts, and why one cannot be had."""

from __future__ import annotations

import errno
import socket
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final

import psutil

from lychee_server.errors import LycheeServerError, SettingsError

PRIVILEGED_PORTS: Final = 1024
LAST_PORT: Final = 65535
PORT_STEP: Final = 10  # between the ports of one Triton and those of the next
ANY: Final = frozenset({"0.0.0.0", "::"})
_FAMILIES: Final = (socket.AF_INET, socket.AF_INET6)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where something is to listen, and the option that says on which host."""

    host: str
    port: int
    host_option: str = "--host"


def check_endpoints(endpoints: Mapping[str, Endpoint]) -> None:
    """Check that no two of them are the same, and that this machine and this user can have them, free or not.

    Args:
        endpoints: The endpoints by the option that chooses the port; port 0 picks a free one.

    Raises:
        LycheeServerError: One cannot be had; SettingsError if that is because of how it was chosen.
    """
    for (first, one), (second, other) in combinations(endpoints.items(), 2):
        overlap = one.host == other.host or ANY & {one.host, other.host} or _resolve(one.host) & _resolve(other.host)
        if one.port == other.port != 0 and overlap:
            raise SettingsError(
                f"{first} and {second} are both {one.port}; expected different ports, or 0 for a free one"
            )
    for option, endpoint in endpoints.items():
        port = endpoint.port if endpoint.port < PRIVILEGED_PORTS else 0
        with socket.socket(family_of(endpoint.host), socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((endpoint.host, port))
            except OSError as error:
                if (problem := find_problem(error, endpoint.host, port, option, endpoint.host_option)) is not None:
                    raise problem from error


def find_problem(error: OSError, host: str, port: int, option: str, host_option: str) -> LycheeServerError | None:
    """Say why an address cannot be listened on, or return None if the reason is another process."""
    if isinstance(error, socket.gaierror):
        return SettingsError(
            f"{host_option} is {host!r}, which is the name of no address ({error.strerror}); expected an address of "
            "this machine such as 127.0.0.1, or 0.0.0.0 for all"
        )
    if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
        return SettingsError(
            f"{host_option} is {host!r}, which is no address of this machine; expected one of "
            f"{', '.join(_own_addresses())}, or 0.0.0.0 for all"
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return SettingsError(
            f"{option} is {port}, and this user may not listen on ports below {PRIVILEGED_PORTS} ({error.strerror}); "
            f"expected one from {PRIVILEGED_PORTS} to 65535. Put a proxy before it to be reached on port {port}"
        )
    return None


def find_free_ports(host: str, ports: Sequence[int], taken: Collection[int]) -> tuple[int, ...]:
    """Return ports like these that nobody holds: each the same distance further on.

    Args:
        host: The address to listen on.
        ports: Ports that somebody else has; 0 stays 0.
        taken: Further ports that are not to be had.

    Raises:
        SettingsError: There are none.
    """
    wanted = [port for port in ports if port]
    for distance in range(PORT_STEP, LAST_PORT, PORT_STEP):
        found = [port + distance for port in wanted]
        if max(found, default=0) > LAST_PORT:
            break
        if not set(taken) & set(found) and all(_is_free(host, port) for port in found):
            return tuple(port + distance if port else 0 for port in ports)
    raise SettingsError(
        f"no ports after {', '.join(map(str, ports))} are free on {host}; say 0 for each, for any that is free"
    )


def _is_free(host: str, port: int) -> bool:
    with socket.socket(family_of(host), socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def family_of(host: str) -> socket.AddressFamily:
    """Return the family of a host: IPv6 if it is such an address, else IPv4."""
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _resolve(host: str) -> set[str]:
    try:
        return {str(found[4][0]) for found in socket.getaddrinfo(host, None, family_of(host))}
    except OSError:
        return set()  # what the check of the address itself tells


def _own_addresses() -> list[str]:
    found = [address for addresses in psutil.net_if_addrs().values() for address in addresses]
    return sorted({address.address for address in found if address.family in _FAMILIES})

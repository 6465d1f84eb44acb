"""The addresses at which one server, or its replicas, can be reached: those of a list, and those that a name has."""

from __future__ import annotations

import ipaddress
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

RESOLVE_S: Final = 5.0  # how old an answer may be while the addresses are used
RESOLVE_SOON_S: Final = 0.5  # the same after a connection was lost


@dataclass(frozen=True, slots=True)
class Address:
    """One address of a server.

    Attributes:
        target: "HOST:PORT" as the URL has it; the port may be missing.
        ip: Which address of the host it is; None leaves that to the protocol.
    """

    target: str
    ip: str | None = None

    @property
    def is_ipv6(self) -> bool:
        """Whether it is known to be one of IPv6."""
        return self.ip is not None and ":" in self.ip

    def __str__(self) -> str:
        if self.ip is None:
            return self.target
        port = split_target(self.target)[1]
        host = f"[{self.ip}]" if self.is_ipv6 else self.ip
        return host if port is None else f"{host}:{port}"


def split_target(target: str) -> tuple[str, int | None]:
    """Return host, without brackets, and port."""
    host, colon, port = target.rpartition(":")
    if not colon or port.endswith("]"):
        host, port = target, ""
    return host.strip("[]"), int(port) if port else None


def is_name(target: str) -> bool:
    """Say whether a host may have several addresses. `localhost` is one server, whichever of its two it listens on."""
    host, _ = split_target(target)
    if host == "localhost":
        return False
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return True
    return False


class Resolver:
    """Looks names up in a thread of its own, which lives as long as one answer takes.

    Args:
        targets: What the URL names.
        take: Gets the addresses, each once, after every answer. An address is gone when two answers lack it. A name
            that cannot be found keeps what it had; one that never could is left to the protocol, and to its error.
    """

    def __init__(self, targets: Sequence[str], take: Callable[[list[Address]], None]) -> None:
        self._take = take
        self._known: dict[str, list[Address]] = {
            target: [] if is_name(target) else [Address(target)] for target in targets
        }
        self._names = [target for target in self._known if is_name(target)]
        self._absent: set[Address] = set()
        self._lock = threading.Lock()
        self._running = False
        self._began_at_s: float | None = None

    def fixed(self) -> list[Address]:
        """Return the addresses that need no look-up."""
        return [address for known in self._known.values() for address in known]

    def refresh(self, now_s: float, *, soon: bool = False) -> None:
        """Look the names up again if the last answer is too old.

        Args:
            now_s: The time, by the caller's clock.
            soon: Whether there is reason to believe that they have changed.
        """
        with self._lock:
            least_s = RESOLVE_SOON_S if soon else RESOLVE_S
            fresh = self._began_at_s is not None and now_s - self._began_at_s < least_s
            if not self._names or self._running or fresh:
                return
            self._running, self._began_at_s = True, now_s
        threading.Thread(target=self._run, name="lychee-resolve", daemon=True).start()

    def _run(self) -> None:
        try:
            for target in self._names:
                self._look_up(target)
        finally:
            self._running = False
        self._take(list(dict.fromkeys(self.fixed())))

    def _look_up(self, target: str) -> None:
        host, port = split_target(target)
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            self._known[target] = self._known[target] or [Address(target)]
            return
        answered = list(dict.fromkeys(Address(target, str(entry[4][0])) for entry in found))
        gone = {address for address in self._known[target] if address.ip is not None} - set(answered)
        self._known[target] = answered + [address for address in gone if address not in self._absent]
        self._absent = {address for address in self._absent if address.target != target} | gone

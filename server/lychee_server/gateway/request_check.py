"""Middleware: refuses what no honest caller sends, before anything else looks at it.

A browser can be made to call a gateway that only its own machine reaches: by a form of a foreign page, which the header
Origin gives away, or under a foreign name that suddenly leads to the loopback, which the header Host gives away.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Final
from urllib.parse import SplitResult, urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from lychee_server.gateway.metrics import Metrics
from lychee_server.gateway.refusals import header, refuse

LOCALHOST: Final = "localhost"
_PORTS: Final = {"http": 80, "https": 443}


class RequestCheck:
    """Refuses requests of an uncertain length (400), to a foreign host (403), and of a foreign site (403).

    Args:
        app: The next application.
        host: The address or name that the gateway listens on.
        allowed_hosts: The names under which proxies and others reach it; "*.example.org" means every subdomain.
        is_open: Whether everyone who reaches the gateway may use it, because it has no keys.
        metrics: Where refusals are counted.
    """

    def __init__(
        self, app: ASGIApp, *, host: str, allowed_hosts: Iterable[str], is_open: bool, metrics: Metrics
    ) -> None:
        self._app = app
        self._host = host.lower()
        self._allowed = tuple(name.lower() for name in allowed_hosts)
        self._metrics = metrics
        # A key keeps foreign names out, and a gateway for the network cannot know its own.
        self._checks_host = bool(self._allowed) or (is_open and is_loopback(self._host))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        names = [name for name, _ in scope["headers"]]
        problem = self._find_problem(header(scope, b"host"), header(scope, b"origin"))
        if b"transfer-encoding" in names and b"content-length" in names:
            self._metrics.reject("invalid")
            message = "the request has Transfer-Encoding and Content-Length; expected one of them"
            await refuse(send, 400, "invalid_request", message, close=True)
        elif problem is not None:
            self._metrics.reject("foreign")
            await refuse(send, 403, "forbidden", problem, close=True)
        else:
            await self._app(scope, receive, send)

    def _find_problem(self, host: str | None, origin: str | None) -> str | None:
        """Say what is foreign about a request; None where nothing is."""
        to = _split(f"//{host or ''}")
        name = None if to is None else to.hostname
        if host is not None and self._checks_host and not (name and self._is_own(name)):
            return (
                f"the header Host is {host[:100]!a}; expected {LOCALHOST} or another name of this gateway: to reach it "
                "under this name, start it with --allowed-host"
            )
        if origin is None:
            return None
        by = _split(origin)
        if by is not None and by.hostname is not None:
            same = to is not None and by.hostname == name and to.port in (None, by.port or _PORTS.get(by.scheme))
            if same or self._is_allowed(by.hostname):
                return None
        return (
            f"the header Origin is {origin[:100]!a}, and Host is {(host or '')[:100]!a}; pages of other sites may not "
            "call this gateway: if this is its own name behind a proxy, start it with --allowed-host"
        )

    def _is_own(self, name: str) -> bool:
        return name == self._host or is_loopback(name) or self._is_allowed(name)

    def _is_allowed(self, name: str) -> bool:
        return any(name.endswith(own[1:]) if own.startswith("*.") else name == own for own in self._allowed)


def is_loopback(host: str) -> bool:
    """Say whether a name or address leads to this machine alone, whoever is asked."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.rstrip(".") == LOCALHOST or host.rstrip(".").endswith(f".{LOCALHOST}")


def _split(url: str) -> SplitResult | None:
    """Take a URL apart; None where it has no form, or names no port where one should be."""
    try:
        parts = urlsplit(url.lower())
        _ = parts.port
        return None if parts.username is not None or parts.path or parts.query or parts.fragment else parts
    except ValueError:
        return None

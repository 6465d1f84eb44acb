"""HTTP to servers on this machine, past any proxy settings."""

import http.client
from collections.abc import Mapping

from lychee_client.triton_key import KEY_HEADER


def reachable_host(host: str) -> str:
    """Return an address to connect to for an address to listen on."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


def exchange(
    host: str,
    port: int,
    method: str,
    path: str,
    *,
    timeout_s: float,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> tuple[int, bytes]:
    """Send a request, and return the answer's status and body, whatever they are.

    Raises:
        OSError: Nobody answers.
        http.client.HTTPException: The answer is not HTTP.
    """
    connection = http.client.HTTPConnection(reachable_host(host), port, timeout=timeout_s)
    try:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def fetch(host: str, port: int, method: str, path: str, *, key: str = "", timeout_s: float = 5.0) -> bytes:
    """Send a request, with Triton's key where there is one, and return the body.

    Raises:
        OSError: Nobody answers.
        http.client.HTTPException: The answer is not HTTP, or not 200.
    """
    headers = {KEY_HEADER: key} if key else None
    status, body = exchange(host, port, method, path, timeout_s=timeout_s, headers=headers)
    if status != http.client.OK:
        raise http.client.HTTPException(f"{method} {path}: status {status}")
    return body

"""What Triton tells and does for those alone who have its key."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Sequence
from typing import Any, Final

from lychee_client.triton_key import KEY_HEADER

from lychee_server.errors import LycheeServerError
from lychee_server.local_http import exchange, fetch

__all__ = ["read_repository_index", "unload"]

UNLOAD_TIMEOUT_S: Final = 30.0
POLL_INTERVAL_S: Final = 0.05
_BUSY: Final = frozenset({"READY", "LOADING", "UNLOADING"})


def read_repository_index(host: str, http_port: int, key: str) -> list[dict[str, Any]]:
    """Return Triton's list of models: `name`, and where it tried to load one, `version`, `state` and `reason`.

    Raises:
        OSError: Nobody answers.
        http.client.HTTPException: The answer is not HTTP, or not 200.
    """
    index: list[dict[str, Any]] = json.loads(fetch(host, http_port, "POST", "/v2/repository/index", key=key))
    return index


def unload(host: str, http_port: int, key: str, models: Sequence[str], *, timeout_s: float) -> bool:
    """Have Triton refuse all new requests to models, and wait until it has answered those that it has begun.

    Args:
        host: Triton's address.
        http_port: Triton's HTTP port.
        key: Triton's key.
        models: The names of the models.
        timeout_s: How long to wait.

    Returns:
        Whether all were answered in that time.

    Raises:
        LycheeServerError: Triton refuses.
        OSError: Nobody answers.
        http.client.HTTPException: The answer is not HTTP, or not 200.
    """
    deadline = time.monotonic() + timeout_s
    for model in models:
        path = f"/v2/repository/models/{model}/unload"
        headers = {KEY_HEADER: key}
        status, body = exchange(host, http_port, "POST", path, timeout_s=UNLOAD_TIMEOUT_S, body=b"{}", headers=headers)
        if status != http.client.OK:
            raise LycheeServerError(f"{model} could not be unloaded: status {status}, {body[:200]!r}")
    while True:
        index = read_repository_index(host, http_port, key)
        if not any(entry["name"] in models and entry.get("state") in _BUSY for entry in index):
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_INTERVAL_S)

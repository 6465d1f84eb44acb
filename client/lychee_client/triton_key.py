"""The key to what Triton keeps to our own processes: its repository, shared memory, log settings and traces."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import platformdirs

KEY_VARIABLE: Final = "LYCHEE_TRITON_KEY"
# Triton wants this beginning over gRPC; over HTTP any name will do.
KEY_HEADER: Final = "triton-grpc-protocol-lychee-key"
STATE_FILE: Final = "server.json"
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})


def key_headers(address: str) -> Mapping[str, str]:
    """Return the header that opens a server, or none where this process has no key.

    The key comes from LYCHEE_TRITON_KEY, or from the state file of the server that this user's `lychee load` started.

    Args:
        address: "HOST:PORT" of the server.
    """
    key = os.environ.get(KEY_VARIABLE) or _read_key(address)
    return {KEY_HEADER: key} if key else {}


def _read_key(address: str) -> str | None:
    host, _, port = address.rpartition(":")
    if host not in _LOOPBACK:
        return None
    folder = os.environ.get("LYCHEE_STATE_DIR") or platformdirs.user_state_path("lychee-rerank")
    try:
        state = json.loads((Path(folder) / STATE_FILE).read_text(encoding="utf-8"))
        ports = {each[kind] for each in state["tritons"] for kind in ("grpc_port", "http_port")}
        return str(state["triton_key"]) if int(port) in ports else None
    except (KeyError, OSError, TypeError, ValueError):
        return None

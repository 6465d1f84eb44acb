"""What is known of a server that was started, for tests."""

from __future__ import annotations

from typing import Any

from lychee_server.state import ServerState, TritonState


def make_triton(**facts: Any) -> TritonState:
    """Return a Triton on the ports 1 to 3, which does not run."""
    told: dict[str, Any] = {
        "name": "",
        "pid": 1,
        "start_ticks": 0.0,
        "marker": "lychee_none_",
        "host": "127.0.0.1",
        "http_port": 1,
        "grpc_port": 2,
        "metrics_port": 3,
        "repository": "models",
        "log_path": "triton.log",
    }
    return TritonState(**told | facts)


def make_state(*tritons: TritonState, marker: str = "lychee_none_", **facts: Any) -> ServerState:
    """Return a server of these Tritons, or of one."""
    return ServerState(tritons or (make_triton(),), marker, **facts)

"""The server of this project: Triton, and the gateway in front of it with its own defaults."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lychee_client import LycheeClient
from lychee_server import TritonServer

from lychee_loadtest.compare.callers import Caller, GatewayCaller, JsonConnection, LycheeCaller
from lychee_loadtest.compare.processes import pick_ports, serve

__all__ = ["Own", "run_own"]

_BUDGETS: Final = {"fp32": 0.0, "bf16": 0.2}
"""How far scores may be off, so that the server chooses this precision: scores of random weights move more in bfloat16
than those of trained ones, and as much as torch's own do."""
_TIMEOUT_S: Final = 120.0
_ENCODER: Final = "text_encoder"


@dataclass(frozen=True)
class Own:
    """The running server.

    Attributes:
        callers: The SDK over gRPC, and the gateway.
        execution: What executes the encoder.
        gateway: The gateway's process. It has every model compute something each second, whoever has his turn.
    """

    callers: tuple[Caller, Caller]
    execution: str
    gateway: subprocess.Popen[bytes]


@contextmanager
def run_own(repository: Path, precision: str, folder: Path) -> Iterator[Own]:
    """Serve an export in one precision, on free ports of the loopback.

    Raises:
        PreparationError: The gateway did not start.
    """
    log_path = folder / f"triton-{precision}.log"
    server = TritonServer(
        repository,
        http_port=0,
        grpc_port=0,
        metrics_port=0,
        error_budget=_BUDGETS[precision],
        log_path=log_path,
        log_level="ERROR",
    )
    with server as triton:
        (port,) = pick_ports(1)
        connection = JsonConnection(port)
        command = [sys.executable, "-m", "lychee_server.gateway", "--triton-url", triton.grpc_url]
        command += ["--host", "127.0.0.1", "--port", str(port), "--timeout-s", str(_TIMEOUT_S)]
        command += ["--no-web", "--log-level", "ERROR"]
        with (
            serve(
                command, lambda: connection.get("/health/ready") == 200, folder / f"gateway-{precision}.log"
            ) as gateway,
            LycheeClient(triton.grpc_url, embedding_cache=None) as client,
        ):
            found = client.manifest().execution[_ENCODER]
            own = LycheeCaller(client, {"timeout_s": _TIMEOUT_S})
            yield Own((own, GatewayCaller(connection)), f"{found.provider}-{found.precision}", gateway)

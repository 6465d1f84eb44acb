"""The contestants: each started in its own environment, and ready to be called."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from lychee_client import LycheeClient
from lychee_server.triton import TritonServer
from tritonclient.grpc import InferenceServerClient, InferenceServerException

from lychee_loadtest.execution import computes_bfloat16, read_executions

from .callers import Caller, FastApiCaller, GatewayCaller, InfinityCaller, JsonConnection, LycheeCaller, PyTritonCaller
from .environments import Environment
from .processes import pick_ports, serve
from .session import SessionCaller
from .verdicts import FLOAT32, Precision, precisions_of

__all__ = [
    "ALTERNATIVES",
    "Contestant",
    "Place",
    "Server",
    "own_contestants",
    "run_lychee",
    "start",
    "start_session",
    "why_left_out",
]

ALTERNATIVES: Final = ("fastapi", "fastapi-bf16", "infinity", "pytriton")
_FASTAPI_PRECISIONS: Final[Mapping[str, Precision]] = {"fastapi": "fp32", "fastapi-bf16": "bf16"}
_SCRIPTS: Final = Path(__file__).parent / "alternatives"
_PYTRITON_BATCH: Final = 64


@dataclass(frozen=True)
class Place:
    """Where the comparison keeps its files.

    Args:
        folder: The folder that holds environments, checkpoint and repositories.
        precision: The precision of the exported repository, as `lychee export --precision` takes it.
        logs: The folder for what servers print.
    """

    folder: Path
    precision: str
    logs: Path

    @property
    def checkpoint(self) -> Path:
        """The checkpoint that everyone serves."""
        return self.folder / "checkpoint"

    @property
    def repository(self) -> Path:
        """Its export."""
        return self.folder / f"repository-{self.precision}"

    def environment(self, name: str) -> Environment:
        """Return an alternative's environment; one service in two precisions has one."""
        return Environment("fastapi" if name in _FASTAPI_PRECISIONS else name, self.folder)


@dataclass(frozen=True)
class Contestant:
    """Something that ranks.

    Attributes:
        name: The name that it has in tables and JSON.
        caller: How to call it.
        versions: The versions of the packages that matter, by package.
        precisions: The precision in which it computes "texts", and that for "photos".
    """

    name: str
    caller: Caller
    versions: dict[str, str]
    precisions: Mapping[str, Precision] = field(default_factory=lambda: FLOAT32)


@dataclass(frozen=True)
class Server:
    """The running server of this project: Triton, the gateway in front of it, and what executes its encoders."""

    grpc_url: str
    gateway_port: int
    executions: Mapping[str, str]


def why_left_out(name: str) -> str | None:
    """Say why an alternative has no place on this machine; None if it has one."""
    if _FASTAPI_PRECISIONS.get(name) == "bf16" and not computes_bfloat16():
        return "this CPU has neither avx512_bf16 nor amx_bf16, and torch emulates bfloat16 there"
    return None


@contextmanager
def start(name: str, place: Place) -> Iterator[Contestant]:
    """Start one of ALTERNATIVES.

    Raises:
        PreparationError: It did not start, or its environment is not ready.
    """
    environment = place.environment(name)
    environment.check()
    log = place.logs / f"{name}.log"
    python, checkpoint = str(environment.python), str(place.checkpoint)
    if name == "pytriton":
        ports = pick_ports(3)
        command = [python, str(_SCRIPTS / "pytriton_server.py"), checkpoint, *map(str, ports)]
        client = InferenceServerClient(f"127.0.0.1:{ports[1]}")
        # PyTriton's stub loads libpython: the one that belongs to the interpreter, not the system's.
        library = {"LD_LIBRARY_PATH": str(sysconfig.get_config_var("LIBDIR"))}
        with closing(client), serve(command, lambda: is_pytriton_ready(client), log, library):
            versions = read_versions(environment, "nvidia-pytriton", "torch", "transformers")
            yield Contestant(name, PyTritonCaller(client, _PYTRITON_BATCH), versions)
        return
    (port,) = pick_ports(1)
    connection = JsonConnection(port)
    caller: Caller
    precisions = FLOAT32
    if name in _FASTAPI_PRECISIONS:
        precision = _FASTAPI_PRECISIONS[name]
        precisions = dict.fromkeys(FLOAT32, precision)
        command = [python, str(_SCRIPTS / "fastapi_server.py"), checkpoint, str(port), precision]
        caller, packages = FastApiCaller(connection), ("fastapi", "torch", "transformers")
    else:
        infinity = str(environment.python.parent / "infinity_emb")
        served = ["--model-id", checkpoint, "--served-model-name", "clip", "--engine", "torch", "--device", "cpu"]
        command = [infinity, "v2", *served, "--host", "127.0.0.1", "--port", str(port)]
        caller, packages = InfinityCaller(connection, "clip"), ("infinity-emb", "torch", "transformers")
    with serve(command, lambda: connection.get("/health") == 200, log):
        yield Contestant(name, caller, read_versions(environment, *packages), precisions)


def start_session(place: Place, executions: Mapping[str, str]) -> Contestant:
    """Open the exported files in this process, executed as a server executes them."""
    caller = SessionCaller(place.repository, len(os.sched_getaffinity(0)), executions)
    precisions = precisions_of(place.precision, executions)
    return Contestant("session", caller, own_versions("onnxruntime-openvino"), precisions)


@contextmanager
def run_lychee(place: Place) -> Iterator[Server]:
    """Run this project's server: Triton, and the gateway with its own defaults."""
    with TritonServer(place.repository, http_port=0, grpc_port=0, metrics_port=0, log_level="ERROR") as triton:
        (port,) = pick_ports(1)
        connection = JsonConnection(port)
        command = [sys.executable, "-m", "lychee_server.gateway", "--triton-url", triton.grpc_url]
        command += ["--host", "127.0.0.1", "--port", str(port), "--no-web", "--log-level", "ERROR"]
        with serve(command, lambda: connection.get("/health/ready") == 200, place.logs / "gateway.log"):
            yield Server(triton.grpc_url, port, read_executions(triton.grpc_url))


def own_contestants(place: Place, server: Server, client: LycheeClient) -> list[Contestant]:
    """Return the SDK over gRPC, and the gateway."""
    versions = own_versions("lychee-rerank-client", "nvidia-pytriton", "onnxruntime-openvino")
    gateway = GatewayCaller(JsonConnection(server.gateway_port))
    precisions = precisions_of(place.precision, server.executions)
    return [
        Contestant("lychee", LycheeCaller(client), versions, precisions),
        Contestant("lychee gateway", gateway, versions, precisions),
    ]


def is_pytriton_ready(client: InferenceServerClient) -> bool:
    """Whether both models are there."""
    try:
        return bool(client.is_model_ready("text") and client.is_model_ready("image"))
    except InferenceServerException:
        return False


def own_versions(*packages: str) -> dict[str, str]:
    """Return versions of packages in the running environment."""
    return {package: importlib.metadata.version(package) for package in packages}


def read_versions(environment: Environment, *packages: str) -> dict[str, str]:
    """Return versions of packages in another environment."""
    code = "import importlib.metadata as m, sys; print(*map(m.version, sys.argv[1:]))"
    command = [str(environment.python), "-c", code, *packages]
    found = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()
    return dict(zip(packages, found, strict=True))

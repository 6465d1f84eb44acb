"""What a running server does right now: its models, what executes them, its cache, its memory."""

import http.client
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any

import psutil
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from lychee_server.gateway.process import read_problem
from lychee_server.local_http import fetch, reachable_host
from lychee_server.processes import describe_process, find_processes
from lychee_server.state import GatewayState, Restarts, ServerState, TritonState
from lychee_server.triton_admin import read_repository_index
from lychee_server.triton_messages import clean_reason

EXECUTION_METRIC = "lychee_model_execution"


@dataclass(frozen=True)
class ServedModelState:
    """A model version. Provider and precision are what runs, not what was asked for; None for an ensemble."""

    name: str
    version: str
    state: str
    reason: str
    provider: str | None
    precision: str | None
    precision_reason: str


@dataclass(frozen=True)
class ProcessMemory:
    """Memory of one process: resident, and with shared pages divided among those that share them."""

    name: str
    pid: int
    rss_bytes: int
    pss_bytes: int


@dataclass(frozen=True)
class GatewayStatus:
    """A gateway that was started. `problem`: why it is not ready, or None."""

    pid: int
    url: str
    log_path: str
    problem: str | None


@dataclass(frozen=True)
class LocalTriton:
    """One Triton of a server. One that does not answer has no models; `name` is empty where it is the only one."""

    name: str
    pid: int
    uptime_s: float
    http_url: str
    grpc_url: str
    metrics_url: str
    repository: str
    log_path: str
    models: tuple[ServedModelState, ...]
    version: int
    config_name: str | None

    @property
    def healthy(self) -> bool:
        """Whether it answers, and every model in it is ready."""
        return bool(self.models) and all(model.state == "READY" for model in self.models)


@dataclass(frozen=True)
class LocalServer:
    """A server whose process lives. Healthy: all its Tritons are, and its gateway is ready if it has one."""

    healthy: bool
    tritons: tuple[LocalTriton, ...]
    processes: tuple[ProcessMemory, ...]
    rss_bytes: int
    pss_bytes: int
    gateway: GatewayStatus | None = None
    restarts: dict[str, Restarts] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return it for programs: what is the first Triton's stands at the top, too."""
        told = asdict(self)
        first = {name: value for name, value in told["tritons"][0].items() if name != "name"}
        return {**first, **told}


def read_status(state: ServerState) -> LocalServer:
    """Ask a running server, and the operating system, how it is."""
    processes = read_memory(state.marker, name_processes(state))
    gateway = None if state.gateway is None else read_gateway(state.gateway)
    tritons = tuple(_read_triton(triton, state.triton_key) for triton in state.tritons)
    return LocalServer(
        healthy=all(triton.healthy for triton in tritons) and (gateway is None or gateway.problem is None),
        tritons=tritons,
        processes=processes,
        rss_bytes=sum(process.rss_bytes for process in processes),
        pss_bytes=sum(process.pss_bytes for process in processes),
        gateway=gateway,
        restarts=state.restarts,
    )


def _read_triton(triton: TritonState, key: str) -> LocalTriton:
    try:
        models = read_models(triton.host, triton.http_port, triton.metrics_port, key)
    except (OSError, http.client.HTTPException):
        models = ()
    host = reachable_host(triton.host)
    return LocalTriton(
        name=triton.name,
        pid=triton.pid,
        uptime_s=triton.process.uptime_s if triton.process.is_running() else 0.0,
        http_url=f"{host}:{triton.http_port}",
        grpc_url=f"{host}:{triton.grpc_port}",
        metrics_url=f"http://{host}:{triton.metrics_port}/metrics",
        repository=triton.repository,
        log_path=triton.log_path,
        models=models,
        version=triton.version,
        config_name=triton.config_name,
    )


def read_gateway(known: GatewayState) -> GatewayStatus:
    """Ask a gateway how it is."""
    problem = read_problem(known.host, known.port) if known.is_running() else "it has ended; see its log"
    url = f"http://{reachable_host(known.host)}:{known.port}"
    return GatewayStatus(known.pid, url, known.log_path, problem)


def read_models(host: str, http_port: int, metrics_port: int, key: str) -> tuple[ServedModelState, ...]:
    """Return the state of every model version that the server knows.

    Raises:
        OSError: Nobody answers.
        http.client.HTTPException: The answer is not HTTP, or not 200.
    """
    index = read_repository_index(host, http_port, key)
    samples = parse_metrics(fetch(host, metrics_port, "GET", "/metrics").decode("utf-8"))
    by_model = {(sample.name, sample.labels.get("model"), sample.labels.get("version")): sample for sample in samples}
    models = []
    for entry in index:
        name, version = entry["name"], entry.get("version", "")
        execution = by_model.get((EXECUTION_METRIC, name, version))
        models.append(
            ServedModelState(
                name=name,
                version=version,
                state=entry.get("state", "UNAVAILABLE"),
                reason=clean_reason(entry.get("reason", "")),
                provider=execution.labels["provider"] if execution else None,
                precision=execution.labels["precision"] if execution else None,
                precision_reason=execution.labels["reason"] if execution else "",
            )
        )
    return tuple(models)


def read_memory(marker: str, names: Mapping[int, str] = MappingProxyType({})) -> tuple[ProcessMemory, ...]:
    """Return the memory of a server and its stubs.

    Args:
        marker: What finds its processes.
        names: What to put before the name of a process, by its pid.
    """
    memory = []
    for process in find_processes(marker):
        try:
            info = process.memory_full_info()
            name = f"{names.get(process.pid, '')} {describe_process(process)}".lstrip()
            memory.append(ProcessMemory(name, process.pid, info.rss, info.pss))
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return tuple(memory)


def name_processes(state: ServerState) -> dict[int, str]:
    """Return the name of the model that each process belongs to, by its pid; an only model has none."""
    named = [triton for triton in state.tritons if triton.name]
    return {process.pid: triton.name for triton in named for process in find_processes(triton.marker)}


def parse_metrics(text: str) -> list[Sample]:
    """Return the samples of Prometheus text, with name, labels and value; the names of counters end with "_total"."""
    return [sample for family in text_string_to_metric_families(text) for sample in family.samples]

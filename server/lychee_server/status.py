"""What a running server does right now: its models, what executes them, its cache, its memory."""

import http.client
from dataclasses import dataclass, field

import psutil
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from lychee_server.gateway.process import read_problem
from lychee_server.local_http import fetch, reachable_host
from lychee_server.processes import describe_process, find_processes
from lychee_server.state import GatewayState, Restarts, ServerState
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
class LocalServer:
    """A server whose process lives. Healthy: it answers, every model in it is ready, and so is its gateway if any."""

    pid: int
    uptime_s: float
    healthy: bool
    http_url: str
    grpc_url: str
    metrics_url: str
    repository: str
    log_path: str
    models: tuple[ServedModelState, ...]
    processes: tuple[ProcessMemory, ...]
    rss_bytes: int
    pss_bytes: int
    version: int = 0
    config_name: str | None = None
    gateway: GatewayStatus | None = None
    restarts: dict[str, Restarts] = field(default_factory=dict)


def read_status(state: ServerState) -> LocalServer:
    """Ask a running server, and the operating system, how it is. A server that does not answer has no models."""
    try:
        models = read_models(state.host, state.http_port, state.metrics_port, state.triton_key)
    except (OSError, http.client.HTTPException):
        models = ()
    processes = read_memory(state.marker)
    gateway = None if state.gateway is None else read_gateway(state.gateway)
    models_ready = bool(models) and all(model.state == "READY" for model in models)
    host = reachable_host(state.host)
    return LocalServer(
        pid=state.pid,
        uptime_s=state.process.uptime_s if state.process.is_running() else 0.0,
        healthy=models_ready and (gateway is None or gateway.problem is None),
        http_url=f"{host}:{state.http_port}",
        grpc_url=f"{host}:{state.grpc_port}",
        metrics_url=f"http://{host}:{state.metrics_port}/metrics",
        repository=state.repository,
        log_path=state.log_path,
        models=models,
        processes=processes,
        rss_bytes=sum(process.rss_bytes for process in processes),
        pss_bytes=sum(process.pss_bytes for process in processes),
        version=state.tritons[0].version if state.tritons else 0,
        config_name=state.tritons[0].config_name if state.tritons else None,
        gateway=gateway,
        restarts=state.restarts,
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


def read_memory(marker: str) -> tuple[ProcessMemory, ...]:
    """Return the memory of the server and its stubs."""
    memory = []
    for process in find_processes(marker):
        try:
            info = process.memory_full_info()
            memory.append(ProcessMemory(describe_process(process), process.pid, info.rss, info.pss))
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return tuple(memory)


def parse_metrics(text: str) -> list[Sample]:
    """Return the samples of Prometheus text, with name, labels and value; the names of counters end with "_total"."""
    return [sample for family in text_string_to_metric_families(text) for sample in family.samples]

"""What a running deployment uses, process by process, and where it holds far more than it uses."""

from __future__ import annotations

import http.client
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, TypeAlias

import psutil
from lychee_server.errors import RepositoryError
from lychee_server.local_http import fetch
from lychee_server.processes import describe_process, find_processes, is_server
from lychee_server.state import ServerState
from lychee_server.status import name_processes, parse_metrics

from lychee_loadtest.memory.deployment import read_deployment
from lychee_loadtest.memory.device import DeviceMemory, read_devices
from lychee_loadtest.memory.process_memory import MemoryReading, read_process

__all__ = ["Expected", "LiveMemory", "ProcessUse", "Warned", "find_fragmentation", "read_live"]

Kind: TypeAlias = Literal["triton", "model", "gateway"]
EXPECTED_MARGIN: Final = 1.25
"""Above this times the predicted bytes a process holds more than its model accounts for."""
WEIGHT_COPIES: Final = 4
"""Without a prediction: weights as they are, as the runtime lays them out, and twice as much for tensors."""
LEAST_WARNED_BYTES: Final = 100_000_000
_INSTANCE: Final = re.compile(r"_\d+_\d+$")
_METRICS: Final = re.compile(r"^nv_(cpu_memory|gpu_memory|pinned_memory)")


@dataclass(frozen=True)
class ProcessUse:
    """One process of a deployment, in bytes.

    Attributes:
        name: `tritonserver`, a model instance, or `gateway`.
        kind: Which of these it is.
        model: The name of the model that a model instance serves; empty for the other two.
        pid: The process id.
        memory: Its memory, as the operating system counts it.
        framework_bytes: What the leanest of the server's model processes holds, for a model; otherwise everything.
        weight_bytes: The size of a model's files, as far as the process holds that much more; otherwise 0.
        tensor_bytes: The rest that a model's process holds: attention, temporary tensors, and copies of weights in the
            runtime's layout; otherwise 0.
        device_bytes: What it holds on all GPUs.
    """

    name: str
    kind: Kind
    model: str
    pid: int
    memory: MemoryReading
    framework_bytes: int
    weight_bytes: int
    tensor_bytes: int
    device_bytes: int


@dataclass(frozen=True)
class Expected:
    """What was predicted, in bytes.

    Attributes:
        by_model: What one process of a model was predicted to need at the largest batch, by model.
        on_gpu: Whether that is memory of the GPU.
    """

    by_model: Mapping[str, float] = field(default_factory=dict)
    on_gpu: bool = False


@dataclass(frozen=True)
class Warned:
    """Memory that is reserved and not used, and what to do."""

    process: str
    reserved_bytes: int
    accounted_bytes: int
    advice: str


@dataclass(frozen=True)
class LiveMemory:
    """A running deployment.

    Attributes:
        processes: Triton first, then its models, then the gateway.
        metrics: What Triton itself says of memory, by name and labels.
        devices: The GPUs; empty if there are none.
    """

    processes: tuple[ProcessUse, ...]
    metrics: Mapping[str, float]
    devices: tuple[DeviceMemory, ...]

    @property
    def rss_bytes(self) -> int:
        """Resident memory, with shared pages in full for every process."""
        return sum(process.memory.rss_bytes for process in self.processes)

    @property
    def pss_bytes(self) -> int:
        """Resident memory, with shared pages divided among those that share them."""
        return sum(process.memory.pss_bytes for process in self.processes)


def read_live(state: ServerState) -> LiveMemory:
    """Read the memory of a running server and its gateway."""
    names = name_processes(state)
    found = [(process, *_identify(process, names.get(process.pid, ""))) for process in find_processes(state.marker)]
    gateway = None if state.gateway is None else state.gateway.process.find()
    if gateway is not None:
        family = [gateway, *gateway.children(recursive=True)]
        found += [(process, "gateway", "gateway", "") for process in family]
    readings = []
    for process, kind, name, model in found:
        try:
            readings.append((process.pid, kind, name, model, read_process(process.pid)))
        except (OSError, psutil.Error):
            continue  # it has ended
    devices = read_devices()
    return LiveMemory(_layered(readings, _file_bytes(state), devices), _read_metrics(state), devices)


def _identify(process: psutil.Process, served: str) -> tuple[Kind, str, str]:
    name = _qualify(served, describe_process(process))
    if is_server(process):
        return "triton", name, ""
    return "model", name, _INSTANCE.sub("", name)


def _qualify(served: str, name: str) -> str:
    """Return the name of a process or a model, after that of the served model where there are several."""
    return f"{served} {name}".lstrip()


def _layered(
    readings: Iterable[tuple[int, Kind, str, str, MemoryReading]],
    file_bytes: Mapping[str, int],
    devices: Sequence[DeviceMemory],
) -> tuple[ProcessUse, ...]:
    found = list(readings)
    least = min((reading.rss_bytes for _, kind, *_, reading in found if kind == "model"), default=0)
    uses = []
    for pid, kind, name, model, reading in found:
        framework = min(least, reading.rss_bytes) if kind == "model" else reading.rss_bytes
        weights = min(file_bytes.get(model, 0), reading.rss_bytes - framework)
        rest = reading.rss_bytes - framework - weights
        device = sum(entry.by_pid.get(pid, 0) for entry in devices)
        uses.append(ProcessUse(name, kind, model, pid, reading, framework, weights, rest, device))
    return tuple(uses)


def find_fragmentation(live: LiveMemory, expected: Expected | None = None) -> tuple[Warned, ...]:
    """Find what holds far more than is accounted for.

    Args:
        live: A running deployment.
        expected: What was predicted; a model that is not there is judged by its weights. Without a prediction for it,
            nothing is said of a GPU: the weights alone do not tell what belongs there.
    """
    known = expected or Expected()
    return (*_fragmented_processes(live, known), *_fragmented_devices(live, known))


def _fragmented_processes(live: LiveMemory, expected: Expected) -> Iterator[Warned]:
    for process in live.processes:
        if process.kind != "model":
            continue
        known = process.model in expected.by_model and not expected.on_gpu
        accounted = (
            expected.by_model[process.model] * EXPECTED_MARGIN
            if known
            else process.framework_bytes + WEIGHT_COPIES * process.weight_bytes
        )
        reserved = process.memory.rss_bytes
        if reserved - accounted > LEAST_WARNED_BYTES:
            yield Warned(process.name, reserved, int(accounted), _advice(known=known))


def _fragmented_devices(live: LiveMemory, expected: Expected) -> Iterator[Warned]:
    """The C++ backend keeps all models in one process, so a GPU is judged as a whole."""
    held = sum(process.device_bytes for process in live.processes)
    accounted = sum(expected.by_model.values()) * EXPECTED_MARGIN if expected.on_gpu else held
    if held - accounted > LEAST_WARNED_BYTES:
        advice = "ONNX Runtime's pool on the GPU doubles what it takes: set arena_extend_strategy 1 or gpu_mem_limit"
        yield Warned("GPU", held, int(accounted), advice)


def _advice(*, known: bool) -> str:
    if known:
        return (
            "memory is fragmented, or other sizes of requests ran than were measured: lower max_run_elements or "
            "max_batch_size in config.pbtxt, start with MALLOC_ARENA_MAX=2, or load the model again"
        )
    return (
        "fragmentation, or large batches; to tell them apart, write what the models need with "
        "`lychee memory --repository DIR --json plan.json` and compare with `lychee memory --live --plan plan.json`"
    )


def _file_bytes(state: ServerState) -> dict[str, int]:
    found = {}
    for triton in state.tritons:
        with suppress(RepositoryError):  # it was changed or removed since
            for model in read_deployment(Path(triton.repository), choose=False):
                found[_qualify(triton.name, model.name)] = model.file_bytes
    return found


def _read_metrics(state: ServerState) -> dict[str, float]:
    """Return the metrics of memory of each Triton that answers."""
    found = {}
    for triton in state.tritons:
        try:
            text = fetch(triton.host, triton.metrics_port, "GET", "/metrics").decode("utf-8")
        except (OSError, http.client.HTTPException):
            continue
        for sample in parse_metrics(text):
            if _METRICS.match(sample.name):
                labels = ",".join(f"{key}={value}" for key, value in sample.labels.items())
                name = _qualify(triton.name, sample.name)
                found[f"{name}{{{labels}}}" if labels else name] = sample.value
    return found

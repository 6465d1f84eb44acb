"""The shape of `GET /v1/status`."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from lychee_server.gateway.answer_schemas import PolicyEntry

SettingValue = str | int | float | bool | None


class _Answer(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class ServedModel(_Answer):
    """The model that is served."""

    model_id: str
    revision: str
    family: str
    precision: str = Field(description="How the weights are stored.")


class ModelState(_Answer):
    """One of the models on Triton, and what executes it."""

    name: str
    version: str
    ready: bool
    reason: str = Field(description="Why it is not ready; empty where it is.")
    provider: str | None = Field(None, description="cpu, openvino, cuda or unknown; null: it only passes tensors on.")
    precision: str | None = Field(None, description="In which it computes; null: Triton does not tell.")
    device: Literal["cpu", "gpu"] | None = None
    chosen_because: str = Field("", description="Why `lychee load` chose that; empty where nothing was chosen.")
    requests: int = Field(0, description="Since Triton loaded it.")
    queue_ms: float | None = Field(None, description="Mean time that a request waited; null: there was none.")
    compute_ms: float | None = Field(None, description="Mean time that a request was computed.")


class ReplicaEntry(_Answer):
    """One of the Tritons among which this gateway spreads its requests."""

    address: str
    state: Literal["new", "live", "not ready", "lost", "silent"] = Field(
        description="live takes requests; the others are left out as long as one is live."
    )
    reason: str = Field(description="Why it is left out; empty where it is not.")
    requests: int = Field(description="Since this gateway has known it.")
    running: int
    latency_ms: float | None = Field(description="Of the last requests; null before the first.")


class CallsNow(_Answer):
    """Calls at this moment, and their limits."""

    running: int
    waiting: int
    max_running: int
    max_waiting: int


class Totals(_Answer):
    """Since the gateway was started."""

    requests: int
    documents: int
    document_errors: int


class Rates(_Answer):
    """Of the last minute."""

    calls_per_s: float
    documents_per_s: float


class Latency(_Answer):
    """Of the last minute's calls; null without any."""

    p50: float | None
    p99: float | None


class CacheState(_Answer):
    """The embedding cache."""

    backend: str
    hits: int
    misses: int
    evictions: int
    failures: int
    entries: int | None = None
    bytes: int | None = None
    max_bytes: int | None = None


class Traffic(_Answer):
    """What this gateway counted."""

    rates: Rates
    latency_ms: Latency
    calls: CallsNow
    totals: Totals
    rejected: dict[str, int] = Field(description="Calls and documents that were refused, by reason.")
    cache: CacheState | None = Field(None, description="Null: it is switched off.")


class Series(_Answer):
    """The last 15 minutes, oldest first. A value is null before the gateway was there, a latency also without calls."""

    step_s: int = Field(description="How many seconds a value stands for.")
    calls_per_s: list[float | None]
    documents_per_s: list[float | None]
    p50_ms: list[float | None]
    p99_ms: list[float | None]
    running: list[int | None] = Field(description="The most calls that were computed at the same time.")
    waiting: list[int | None] = Field(description="The most calls that waited for a slot.")


class GoldenPair(_Answer):
    """A pair whose score is known."""

    expected: float
    measured: float | None = Field(description="Null: the model gave no number.")
    abs_error: float | None


class GoldenState(_Answer):
    """The last replay of the golden pairs, and whether it still counts."""

    state: Literal["never", "passed", "failed", "outdated"] = Field(
        description="outdated: Triton or a model has been away since, and the pairs were not replayed yet."
    )
    checked_at: float | None = Field(None, description="Seconds since 1970.")
    lost_at: float | None = Field(None, description="Since when Triton or a model has been away.")
    tolerance: float | None = None
    max_abs_error: float | None = Field(None, description="Null also where the model gave no number.")
    pairs: list[GoldenPair] = []


class LoggedError(_Answer):
    """An error of the gateway's log: never texts, images or keys."""

    time: float = Field(description="Seconds since 1970.")
    level: str
    logger: str
    message: str
    request_id: str | None = None
    model: str | None = Field(None, description="Which of several models it is about; null: none, or there is one.")
    route: str | None = None
    status: int | None = None
    detail: str | None = Field(None, description="The type of the error, or what the server said.")


class Errors(_Answer):
    """The last errors of the model and of the gateway as a whole, newest first; of other models none."""

    gateway: list[LoggedError]
    triton: list[str] | None = Field(description="Lines of Triton's log; null: it does not run on this machine.")


class Memory(_Answer):
    """In bytes."""

    gateway: int
    triton: int | None = Field(description="All its processes; null: `lychee load` did not start it on this machine.")


class SettingEntry(_Answer):
    """A setting of the gateway."""

    name: str
    value: SettingValue
    is_hidden: bool = Field(description="True: it may be a secret or a path, and `value` only says whether it is set.")


class StatusAnswer(_Answer):
    """How one gateway and the Triton behind it are."""

    taken_at: float = Field(description="Seconds since 1970.")
    state: Literal["starting", "ready", "degraded", "unavailable", "stopping"]
    reason: str | None = Field(description="Why it is not ready.")
    pid: int = Field(description="The process that answers; traffic, series and errors are its own.")
    uptime_s: float
    triton_live: bool
    model: ServedModel | None = Field(description="Null while Triton does not answer.")
    models: list[ModelState]
    replicas: list[ReplicaEntry] = Field([], description="Empty where Triton has a single address.")
    traffic: Traffic
    series: Series
    golden: GoldenState
    errors: Errors
    memory: Memory
    policies: list[PolicyEntry]
    default_policy: str
    settings: list[SettingEntry]
    versions: dict[str, str]

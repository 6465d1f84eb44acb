"""How the gateway and the server behind it are right now, in one answer."""

from __future__ import annotations

import asyncio
import http.client
import os
import time
from collections.abc import Awaitable, Mapping
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Final, Literal, TypeVar
from urllib.parse import urlsplit

import psutil
from lychee_client import LycheeError, Manifest, ModelTimings, ServerStatus

from lychee_server import state
from lychee_server.gateway.answer_schemas import describe_policies
from lychee_server.gateway.service import DISTRIBUTION, Service
from lychee_server.gateway.settings import GatewaySettings
from lychee_server.gateway.status.answer import (
    Errors,
    Memory,
    ModelState,
    ReplicaEntry,
    Series,
    ServedModel,
    SettingEntry,
    StatusAnswer,
    Traffic,
)
from lychee_server.gateway.status.golden import describe_golden
from lychee_server.gateway.status.recent_errors import RecentErrors
from lychee_server.state import ServerState
from lychee_server.status import ServedModelState, read_memory, read_models
from lychee_server.triton_messages import read_last_errors

ANSWER_TIMEOUT_S: Final = 3.0
DISTRIBUTIONS: Final = (DISTRIBUTION, "lychee-rerank-client", "lychee-rerank-evaluate", "fastapi", "tritonclient")
LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
PROVIDERS: Final = {  # as ONNX Runtime names them, and as manifests do
    "CPUExecutionProvider": "cpu",
    "OpenVINOExecutionProvider": "openvino",
    "CUDAExecutionProvider": "cuda",
}

DEVICES: Final[dict[str | None, Literal["cpu", "gpu"]]] = {"cpu": "cpu", "openvino": "cpu", "cuda": "gpu"}

T = TypeVar("T")


async def collect_status(service: Service, errors: RecentErrors) -> StatusAnswer:
    """Ask everyone, all at the same time. Whoever does not answer within a few seconds is away."""
    local = await asyncio.to_thread(find_local_triton, service.settings.triton_url)
    triton, timings, manifest, running, memory, triton_errors = await asyncio.gather(
        _ask(service.server_status(), ServerStatus(live=False)),
        _ask(service.model_timings(), {}),
        _ask(service.manifest(), None),
        asyncio.to_thread(_read_running, local),
        asyncio.to_thread(_measure_memory, local),
        asyncio.to_thread(_read_triton_errors, local),
    )
    health, snapshot = service.health, service.metrics.snapshot(service.name)
    current, reason = health.state, health.reason
    if not triton.live and current in ("ready", "degraded"):  # the health has not noticed yet
        health.suspect()
        current, reason = "unavailable", f"Triton at {service.settings.triton_url} does not answer"
    return StatusAnswer(
        taken_at=time.time(),
        state=current,
        reason=reason,
        pid=os.getpid(),
        uptime_s=snapshot["uptime_s"],
        triton_live=triton.live,
        model=ServedModel.model_validate(manifest) if manifest is not None and triton.live else None,
        models=_describe_models(triton, timings, manifest, running) if triton.live else [],
        replicas=[ReplicaEntry.model_validate(replica) for replica in triton.replicas],
        traffic=Traffic.model_validate(snapshot),
        series=Series.model_validate(service.counts.recent.series()),
        golden=describe_golden(health, triton_live=triton.live),
        errors=Errors(gateway=errors.latest(service.name), triton=triton_errors),
        memory=memory,
        policies=describe_policies(service.policies()),
        default_policy=service.default_policy,
        settings=describe_settings(service.settings),
        versions=_read_versions(triton),
    )


def describe_settings(settings: GatewaySettings) -> list[SettingEntry]:
    """Return what may be shown of the settings: of those that may hold a secret or a path only whether they are set."""
    entries = []
    for name, field in GatewaySettings.model_fields.items():
        value = getattr(settings, name) if field.repr else bool(getattr(settings, name))
        shown = ", ".join(value) if isinstance(value, tuple) else value
        entries.append(SettingEntry(name=name, value=shown, is_hidden=not field.repr))
    return entries


def find_local_triton(triton_url: str) -> ServerState | None:
    """Return the server that `lychee load` started here, with the Triton at the URL alone, if it has that."""
    known = state.read_state()
    if "," in triton_url:  # replicas, of which it would be one
        return None
    address = urlsplit(triton_url if "://" in triton_url else f"grpc://{triton_url}")
    if known is None or address.hostname not in LOOPBACK:
        return None
    triton = known.find_triton(address.port)
    return None if triton is None else replace(known, tritons=(triton,), marker=triton.marker)


async def _ask(question: Awaitable[T], otherwise: T) -> T:
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            return await question
    except (LycheeError, TimeoutError):
        return otherwise


def _describe_models(
    triton: ServerStatus,
    timings: Mapping[str, ModelTimings],
    manifest: Manifest | None,
    running: Mapping[str, ServedModelState],
) -> list[ModelState]:
    """Return every model; what executes it as its process says on this machine, else as the configuration does."""
    models = []
    for model in triton.models:
        told = running.get(model.name)
        configured = None if manifest is None else manifest.execution.get(model.name)
        provider, precision, because = None, None, ""
        if told is not None and told.provider is not None:
            provider, precision = PROVIDERS.get(told.provider, told.provider), told.precision
            because = told.precision_reason
        elif configured is not None:
            provider, precision, because = configured.provider, configured.precision, configured.reason
        counted = timings.get(model.name)
        models.append(
            ModelState(
                name=model.name,
                version=model.version,
                ready=model.ready,
                reason=model.reason,
                provider=provider,
                precision=precision,
                device=DEVICES.get(provider),
                chosen_because=because,
                requests=counted.requests if counted else 0,
                queue_ms=counted.queue_ms if counted else None,
                compute_ms=counted.compute_ms if counted else None,
            )
        )
    return models


def _read_running(local: ServerState | None) -> dict[str, ServedModelState]:
    if local is None or not local.is_running():
        return {}
    try:
        triton = local.first
        models = read_models(triton.host, triton.http_port, triton.metrics_port, local.triton_key)
    except (OSError, http.client.HTTPException):
        return {}
    return {model.name: model for model in models}


def _measure_memory(local: ServerState | None) -> Memory:
    triton = 0
    if local is not None and local.is_running():
        triton = sum(process.pss_bytes for process in read_memory(local.marker))
    return Memory(gateway=psutil.Process().memory_info().rss, triton=triton or None)


def _read_triton_errors(local: ServerState | None) -> list[str] | None:
    """Return the last errors of the log of a Triton on this machine, also of one that has ended."""
    if local is None:
        return None
    try:
        return read_last_errors(Path(local.first.log_path))
    except OSError:
        return None


def _read_versions(triton: ServerStatus) -> dict[str, str]:
    versions = {}
    for name in DISTRIBUTIONS:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions | ({"Triton": triton.version} if triton.version else {})

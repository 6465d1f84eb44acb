"""How the gateway and the server behind it are right now, in one object: for the tab Status."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Final
from urllib.parse import urlsplit

import psutil
from lychee_client import GoldenReport, LycheeError, Manifest, ModelStatus, ModelTimings, ServerStatus

from lychee_server import state
from lychee_server.gateway.health import State
from lychee_server.gateway.service import Service
from lychee_server.gateway.settings import GatewaySettings
from lychee_server.status import read_memory

ANSWER_TIMEOUT_S: Final = 3.0
DISTRIBUTIONS: Final = ("lychee-rerank-server", "lychee-rerank-client", "gradio", "fastapi", "tritonclient")
LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
SettingValue = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident memory in bytes; None where a process is not on this machine."""

    gateway: int
    triton: int | None


@dataclass(frozen=True, slots=True)
class StatusReport:
    """Everything that the tab shows.

    Attributes:
        taken_at: When the report was made, in seconds since 1970.
        uptime_s: How long the gateway has been running.
        state: The state of the gateway's health.
        reason: Why the state is not "ready"; None when it is.
        triton: What the server says about itself; not live where it does not answer.
        manifest: The manifest of the served model; None where the server does not answer.
        models: What Triton counted, by model; empty where it does not answer.
        traffic: See Metrics.snapshot.
        memory: The memory that gateway and Triton take.
        golden: The last replay of the golden pairs; None before the first.
        golden_checked_at: When that was, in seconds since 1970.
        settings: The settings by name; of those that may hold secrets only whether they are set.
        versions: The versions of the installed distributions by name, and Triton's.
    """

    taken_at: float
    uptime_s: float
    state: State
    reason: str | None
    triton: ServerStatus
    manifest: Manifest | None
    models: Mapping[str, ModelTimings]
    traffic: Mapping[str, Any]
    memory: Memory
    golden: GoldenReport | None
    golden_checked_at: float | None
    settings: Mapping[str, SettingValue]
    versions: Mapping[str, str]


async def collect_status(service: Service) -> StatusReport:
    """Ask everyone, all at the same time. Whoever does not answer within a few seconds is away."""
    triton, models, manifest, memory = await asyncio.gather(
        _ask_server(service),
        _ask_statistics(service),
        _ask_manifest(service),
        asyncio.to_thread(_measure_memory, service.settings.triton_url),
    )
    traffic = service.metrics.snapshot()
    return StatusReport(
        taken_at=time.time(),
        uptime_s=float(traffic["uptime_s"]),
        state=service.health.state,
        reason=service.health.reason,
        triton=triton,
        manifest=manifest if triton.live else None,
        models=models if triton.live else {},
        traffic=traffic,
        memory=memory,
        golden=service.health.golden,
        golden_checked_at=service.health.golden_checked_at,
        settings=describe_settings(service.settings),
        versions=_read_versions(triton),
    )


def describe_settings(settings: GatewaySettings) -> dict[str, SettingValue]:
    """Return what may be shown of the settings: of those that may hold a secret or a path only whether they are set."""
    shown: dict[str, SettingValue] = {}
    for name, field in GatewaySettings.model_fields.items():
        value = getattr(settings, name)
        if not field.repr:
            value = bool(value)
        shown[name] = ", ".join(value) if isinstance(value, tuple) else value
    return shown


def read_model_rows(report: StatusReport) -> list[tuple[ModelStatus, ModelTimings | None]]:
    """Return every model that Triton knows with what it counted; None where it counted nothing yet."""
    return [(model, report.models.get(model.name)) for model in report.triton.models]


async def _ask_server(service: Service) -> ServerStatus:
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            return await service.server_status()
    except (LycheeError, TimeoutError):
        return ServerStatus(live=False)


async def _ask_statistics(service: Service) -> Mapping[str, ModelTimings]:
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            return await service.model_timings()
    except (LycheeError, TimeoutError):
        return {}


async def _ask_manifest(service: Service) -> Manifest | None:
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            return await service.manifest()
    except (LycheeError, TimeoutError):
        return None


def _measure_memory(triton_url: str) -> Memory:
    """Measure this process, and the Triton that `lychee load` started here if that is the one which is used."""
    gateway = psutil.Process().memory_info().rss
    known = state.read_state()
    address = urlsplit(triton_url if "://" in triton_url else f"grpc://{triton_url}")
    is_ours = (
        known is not None
        and address.hostname in LOOPBACK
        and address.port in (known.grpc_port, known.http_port)
        and known.is_running()
    )
    if known is None or not is_ours:
        return Memory(gateway, None)
    return Memory(gateway, sum(process.pss_bytes for process in read_memory(known.marker)) or None)


def _read_versions(triton: ServerStatus) -> dict[str, str]:
    versions = {}
    for name in DISTRIBUTIONS:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions | ({"Triton": triton.version} if triton.version else {})

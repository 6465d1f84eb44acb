"""The health of all models of a gateway, as one answer.

The gateway is ready while one model is: were it not, whoever spreads calls over gateways would take the models that are
well away with the one that is not. `/health`, which people and alerts read, is ok only while all are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from lychee_server.gateway.answer_schemas import HealthOfSeveral, ModelHealth
from lychee_server.gateway.health import Health
from lychee_server.gateway.model_services import ModelServices


async def check_all(services: ModelServices) -> HealthOfSeveral:
    """Score a pair on each model, all at the same time."""
    reports = await asyncio.gather(*(service.health.check() for service in services))
    models = {
        service.name: ModelHealth.model_validate(report) for service, report in zip(services, reports, strict=True)
    }
    statuses = {report.status for report in reports}
    latencies = [report.latency_ms for report in reports if report.latency_ms is not None]
    return HealthOfSeveral(
        status="ok" if statuses == {"ok"} else "unavailable" if statuses == {"unavailable"} else "degraded",
        latency_ms=max(latencies, default=None),
        reason="; ".join(f"{name}: {each.reason}" for name, each in models.items() if each.status != "ok") or None,
        models=models,
    )


def tell_readiness(services: ModelServices) -> tuple[Mapping[str, Any], bool]:
    """Return how each model is, and whether one of them takes calls."""
    models = {service.name: describe_readiness(service.health) for service in services}
    ready = [name for name, told in models.items() if told["status"] == "ok"]
    reason = "; ".join(f"{name}: {told['reason']}" for name, told in models.items() if name not in ready)
    status = "ok" if len(ready) == len(models) else "degraded" if ready else "unavailable"
    return {"status": status, **({"reason": reason} if reason else {}), "models": models}, bool(ready)


def describe_readiness(health: Health) -> Mapping[str, Any]:
    """Return whether a model takes calls, and why not."""
    if health.state == "ready":
        return {"status": "ok"}
    status = "degraded" if health.state == "degraded" else "unavailable"
    return {"status": status, "reason": f"{health.state}: {health.reason}"}

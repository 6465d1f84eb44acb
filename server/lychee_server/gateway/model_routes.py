"""The routes that describe the served models, their policies and limits."""

from __future__ import annotations

import asyncio
from importlib import metadata
from typing import Any

from fastapi import APIRouter
from lychee_client import Manifest
from lychee_client.instructions import all_instructions

from lychee_server.gateway.answer_schemas import (
    ExecutionEntry,
    InstructionEntry,
    InstructionList,
    ModelEntry,
    ModelList,
    OneOfSeveral,
    SettingsAnswer,
    describe_policies,
)
from lychee_server.gateway.dialects.tei import describe_model
from lychee_server.gateway.model_services import ModelServices
from lychee_server.gateway.request_schemas import ModelQuery
from lychee_server.gateway.route_errors import ERRORS
from lychee_server.gateway.service import DISTRIBUTION, Service
from lychee_server.gateway.unknown_names import UnknownNames


def make_model_routes(services: ModelServices) -> APIRouter:
    """Return the routes."""
    router = APIRouter(tags=["model"], responses={503: ERRORS[503]})

    async def describe(service: Service) -> list[ModelEntry]:
        manifest = await service.manifest()
        return [_describe(services, service, manifest, name) for name in services.names(service, manifest)]

    @router.get("/v1/models", summary="The served models")
    async def models() -> ModelList:
        """Describe the models, the default first, each once for each of its names.

        Where there are several, one that has never been ready is left out; without any, the status is 503.
        """
        known = [service for service in services if service.known_manifest is not None] or [services.default]
        return ModelList(data=[entry for service in known for entry in await describe(service)])

    @router.get("/v1/models/{name:path}", responses={404: ERRORS[404]}, summary="A served model, by its name")
    async def model(name: str) -> ModelEntry:
        """Describe the model that answers calls for this name: where there is one, for every name."""
        service = await services.choose(name)
        await services.check_name(service, name, UnknownNames(strict=False))
        entries = await describe(service)
        return next((entry for entry in entries if entry.id == name), entries[0])

    @router.get("/info", summary="The served model, as clients of Text Embeddings Inference read it")
    async def info() -> dict[str, Any]:
        """Say that the default model is a reranker, how long texts may be, and how many fit into a call."""
        settings = services.default.settings
        return describe_model(
            await services.default.manifest(),
            metadata.version(DISTRIBUTION),
            max_documents=settings.max_documents,
            max_calls=settings.max_concurrency + settings.max_waiting,
        )

    @router.get("/v1/settings", summary="Policies and limits")
    async def settings(model: ModelQuery = None) -> SettingsAnswer:
        """List the policies with their thresholds, the one that is used by default, and the limits of a call."""
        service = await services.choose(model)
        limits = service.settings
        return SettingsAnswer(
            version=metadata.version(DISTRIBUTION),
            policies=describe_policies(service.policies()),
            default_policy=service.default_policy,
            max_documents=limits.max_documents,
            max_request_mb=limits.max_request_mb,
            timeout_ms=1e3 * limits.timeout_s,
        )

    @router.get("/v1/instructions", summary="Named instructions")
    async def instructions() -> InstructionList:
        """List the instructions that `instruction: {"name": ...}` can name."""
        templates = await asyncio.to_thread(all_instructions)
        return InstructionList(
            data=[
                InstructionEntry(
                    name=name, purpose=template.purpose, texts={str(k): v for k, v in template.texts.items()}
                )
                for name, template in templates.items()
            ]
        )

    return router


def _describe(services: ModelServices, service: Service, manifest: Manifest, name: str) -> ModelEntry:
    """Return a model under one of its names."""
    told: dict[str, Any] = {
        "id": name,
        "root": manifest.model_id,
        "revision": manifest.revision,
        "version": manifest.version,
        "precision": manifest.precision,
        "execution": {name: ExecutionEntry.model_validate(each) for name, each in manifest.execution.items()},
        "family": manifest.family,
        "max_tokens": manifest.text.max_tokens,
        "reads_instruction": manifest.instruction is not None,
        "default_instruction": None if manifest.instruction is None else manifest.instruction.default,
        "artifacts": dict(manifest.artifacts),
        "max_timeout_ms": 1e3 * service.settings.timeout_s,
        "max_img_size": manifest.max_img_size,
    }
    if not services.is_several:
        return ModelEntry(**told)
    return OneOfSeveral(
        **told, name=service.name, default=service is services.default, ready=service.health.state == "ready"
    )

"""The calls to one gateway as coroutines."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final
from urllib.parse import quote

import msgspec

from lychee_client._errors import ConnectionFailedError, InvalidInputError, LycheeError, ServerError
from lychee_client._gateway.answer import merge_errors, read_models, read_response
from lychee_client._gateway.body import Body, make_body
from lychee_client._operations import exchange, in_thread
from lychee_client._options import RerankOptions
from lychee_client.experiments.events import FeedbackEvent
from lychee_client.served_models import ServedModel, choose_model, find_model
from lychee_client.thresholds import Policy
from lychee_client.transports.base import JsonRequest, TransportError
from lychee_client.types import DocumentError, Input, ModelStatus, RerankResponse, ServerStatus, Timings

KEY_HEADER: Final = "X-Api-Key"


class Gateway:
    """Makes the calls to one gateway, and keeps what they learn about its models.

    Args:
        url: The gateway's URL, for messages.
        api_key: The key that opens it; None sends none.
        name: The name of the model that is meant; None means the gateway's default.
    """

    def __init__(self, url: str, api_key: str | None, name: str | None = None) -> None:
        self._url = url
        self._headers: Mapping[str, str] = {} if api_key is None else {KEY_HEADER: api_key}
        self._name = name
        self._model: ServedModel | None = None
        self._served: tuple[ServedModel, ...] = ()

    async def models(self) -> tuple[ServedModel, ...]:
        """Return what the gateway says about its models now, the default first; at least one.

        Raises:
            LycheeError: It does not say it.
        """
        answer = await exchange(JsonRequest("GET", "/v1/models", headers=self._headers))
        self._served = read_models(answer.content, self._url)
        return self._served

    async def model(self) -> ServedModel:
        """Return what the gateway says about the model that is meant; ask the first time.

        Raises:
            ConfigurationError: It serves no model of the name.
            ModelNotReadyError: It does, or may, and has not seen it ready yet.
            LycheeError: It does not say it.
        """
        if self._model is None:
            served = self._served or await self.models()
            if self._name is not None and find_model(served, self._name) is None:
                self._served = ()  # who asks again may find it
                path = f"/v1/models/{quote(self._name)}"
                await exchange(JsonRequest("GET", path, headers=self._headers))  # says whether it is unknown, or away
                served = await self.models()
            self._model = choose_model(served, self._name, self._url)
        return self._model

    async def rerank(
        self,
        query: Input,
        documents: Sequence[Input],
        options: RerankOptions,
        policy: Policy,
        instruction: str | None,
        ends_at_s: float | None,
    ) -> RerankResponse:
        """Rank documents; see LycheeClient.rerank.

        Args:
            query: The query; it has passed `check_input`.
            documents: The documents, of any type.
            options: The options of the call.
            policy: The policy that decides.
            instruction: The instruction; None where the model reads none, or its default.
            ends_at_s: When the call's time is over, by `time.monotonic`. None sets no limit.
        """
        model = await self.model()
        timeout_s = None if ends_at_s is None else ends_at_s - time.monotonic()
        if timeout_s is not None and model.max_timeout_s is not None:
            timeout_s = min(timeout_s, model.max_timeout_s)
        body = await in_thread(
            partial(make_body, query, documents, options, policy, instruction, timeout_s, self._name)
        )
        kept = documents if options.get("return_documents") else None
        if not body.content:
            return RerankResponse((), body.errors, Timings(), model.identity)
        return await self._send(body, kept)

    async def _send(self, body: Body, documents: Sequence[Input] | None) -> RerankResponse:
        request = JsonRequest("POST", "/v1/rerank", body.content, self._headers)
        try:
            answer = (await exchange(request)).content
        except InvalidInputError as error:
            errors = _read_refused_documents(error, body)
            if not errors:
                raise
            return RerankResponse((), errors, Timings(), (await self.model()).identity)
        response = read_response(answer, self._url, body, documents)
        model = await self._find_answering(answer.get("model"), response)
        return replace(response, model=model.identity)

    async def _find_answering(self, model_id: str | None, response: RerankResponse) -> ServedModel:
        """Return the model that has answered a call; ask which are served now where it is none of those known."""

        def has_answered(model: ServedModel) -> bool:
            return (model.identity.model_id, model.version) == (model_id, response.model_version)

        model = await self.model()
        if has_answered(model):
            return model
        other = next(filter(has_answered, self._served), None)
        if other is not None and response.experiment is not None:  # the user's arm names a model of its own
            return other
        self._model, self._served = None, ()  # others are served now
        model = await self.model()
        return next((each for each in (model, *self._served) if has_answered(each)), model)

    async def feedback(self, ranking_id: str, events: Sequence[FeedbackEvent]) -> None:
        """See LycheeClient.feedback."""
        content = msgspec.json.encode({"ranking_id": ranking_id, "events": events})
        await exchange(JsonRequest("POST", "/v1/feedback", content, self._headers, once=True))

    async def is_ready(self) -> bool:
        """Say whether calls may be sent.

        Raises:
            ConfigurationError: The gateway serves no model of the name.
        """
        path = "/health/ready" if self._name is None else f"/health/ready?model={quote(self._name, safe='')}"
        status = (await exchange(JsonRequest("GET", path, any_status=True))).status
        if self._name is not None and status in (200, 404):
            await self.model()
        return status == 200

    async def status(self) -> ServerStatus:
        """Return what the gateway says about itself: ready means that the model is ready that is meant."""
        ready = await exchange(JsonRequest("GET", "/health/ready", any_status=True))
        told = ready.content if isinstance(ready.content, Mapping) else {}
        is_ready = ready.status == 200
        try:
            served = await self.models()
        except (ConnectionFailedError, ServerError):
            return ServerStatus(live=True, ready=is_ready and self._name is None, gateway=True)
        models = tuple(_describe(model, told, is_ready=is_ready) for model in served)
        away = tuple(
            ModelStatus(name, "", ready=False, reason=str(each.get("reason", "")))
            for name, each in told.get("models", {}).items()
            if find_model(served, name) is None
        )
        if self._name is not None:
            meant = find_model(served, self._name)
            is_ready = meant is not None and models[served.index(meant)].ready
        return ServerStatus(live=True, ready=is_ready, models=models + away, gateway=True)


def _describe(model: ServedModel, told: Mapping[str, Any], *, is_ready: bool) -> ModelStatus:
    """Return the state of a model, by what `GET /health/ready` told."""
    each = told.get("models", {})
    own = next((each[name] for name in model.names if name in each), None)
    if own is None:
        return ModelStatus(model.names[0], model.identity.revision, is_ready, str(told.get("reason", "")))
    return ModelStatus(model.names[0], model.identity.revision, own.get("status") == "ok", str(own.get("reason", "")))


def _read_refused_documents(error: LycheeError, body: Body) -> tuple[DocumentError, ...]:
    """Return what is wrong with every document of a call that was refused because of that; nothing for other errors."""
    failure = error.__cause__
    content = failure.response.content if isinstance(failure, TransportError) and failure.response is not None else None
    try:
        return merge_errors(body, content["errors"]) if isinstance(content, Mapping) else ()
    except (LookupError, TypeError, ValueError):
        return ()

"""The calls to one gateway as coroutines."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

import msgspec

from lychee_client._errors import ConnectionFailedError, InvalidInputError, LycheeError, ServerError
from lychee_client._gateway.answer import ServedModel, merge_errors, read_model, read_response
from lychee_client._gateway.body import Body, make_body
from lychee_client._operations import exchange, in_thread
from lychee_client._options import RerankOptions
from lychee_client.experiments.events import FeedbackEvent
from lychee_client.thresholds import Policy
from lychee_client.transports.base import JsonRequest, TransportError
from lychee_client.types import DocumentError, Input, ModelStatus, RerankResponse, ServerStatus, Timings

KEY_HEADER: Final = "X-Api-Key"


class Gateway:
    """Makes the calls to one gateway, and keeps what they learn about its model.

    Args:
        url: The gateway's URL, for messages.
        api_key: The key that opens it; None sends none.
    """

    def __init__(self, url: str, api_key: str | None) -> None:
        self._url = url
        self._headers: Mapping[str, str] = {} if api_key is None else {KEY_HEADER: api_key}
        self._model: ServedModel | None = None

    async def model(self) -> ServedModel:
        """Return what the gateway says about its model; ask the first time.

        Raises:
            LycheeError: It does not say it.
        """
        if self._model is None:
            answer = await exchange(JsonRequest("GET", "/v1/models", headers=self._headers))
            self._model = read_model(answer.content, self._url)
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
        body = await in_thread(partial(make_body, query, documents, options, policy, instruction, timeout_s))
        kept = documents if options.get("return_documents") else None
        response = await self._send(body, kept) if body.content else RerankResponse((), body.errors, Timings())
        return replace(response, model=(await self.model()).identity)

    async def _send(self, body: Body, documents: Sequence[Input] | None) -> RerankResponse:
        request = JsonRequest("POST", "/v1/rerank", body.content, self._headers)
        try:
            answer = (await exchange(request)).content
        except InvalidInputError as error:
            errors = _read_refused_documents(error, body)
            if not errors:
                raise
            return RerankResponse((), errors, Timings())
        response = read_response(answer, self._url, body, documents)
        if self._model is not None and (answer.get("model"), response.model_version) != (
            self._model.identity.model_id,
            self._model.version,
        ):
            self._model = None  # another one is served now
        return response

    async def feedback(self, ranking_id: str, events: Sequence[FeedbackEvent]) -> None:
        """See LycheeClient.feedback."""
        content = msgspec.json.encode({"ranking_id": ranking_id, "events": events})
        await exchange(JsonRequest("POST", "/v1/feedback", content, self._headers, once=True))

    async def is_ready(self) -> bool:
        """Say whether calls may be sent."""
        return (await exchange(JsonRequest("GET", "/health/ready", any_status=True))).status == 200

    async def status(self) -> ServerStatus:
        """Return what the gateway says about itself."""
        ready = await exchange(JsonRequest("GET", "/health/ready", any_status=True))
        told = ready.content if isinstance(ready.content, Mapping) else {}
        try:
            identity = (await self.model()).identity
        except (ConnectionFailedError, ServerError):
            return ServerStatus(live=True, ready=ready.status == 200, gateway=True)
        name, revision, is_ready = identity.model_id, identity.revision, ready.status == 200
        model = ModelStatus(name, revision, is_ready, str(told.get("reason", "")))
        return ServerStatus(live=True, ready=is_ready, models=(model,), gateway=True)


def _read_refused_documents(error: LycheeError, body: Body) -> tuple[DocumentError, ...]:
    """Return what is wrong with every document of a call that was refused because of that; nothing for other errors."""
    failure = error.__cause__
    content = failure.response.content if isinstance(failure, TransportError) and failure.response is not None else None
    try:
        return merge_errors(body, content["errors"]) if isinstance(content, Mapping) else ()
    except (LookupError, TypeError, ValueError):
        return ()

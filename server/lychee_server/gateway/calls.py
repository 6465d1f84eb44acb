"""A call: what a request holds, read once, and asked of one model or of another."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from lychee_client import InvalidInputError, RerankOptions
from lychee_client.types import Input

from lychee_server.defaults import MIB
from lychee_server.gateway.call_options import make_options
from lychee_server.gateway.documents import DocumentReader, Fetcher
from lychee_server.gateway.errors import RequestValueError
from lychee_server.gateway.model_services import ModelServices
from lychee_server.gateway.request_ids import current_request_id
from lychee_server.gateway.request_schemas import CallOptions, RerankRequest
from lychee_server.gateway.service import Service
from lychee_server.gateway.service_answer import ServiceAnswer
from lychee_server.gateway.settings import GatewaySettings
from lychee_server.gateway.unknown_names import UnknownNames

B = TypeVar("B", bound=CallOptions)
B_co = TypeVar("B_co", bound=CallOptions, covariant=True)


@dataclass(frozen=True, slots=True)
class Call(Generic[B_co]):
    """A request that was read, as one model is asked.

    Attributes:
        service: Of the model.
        body: The request.
        options: What it says to the client; `timeout_s` is left out.
        query: The query.
        documents: The documents; one that cannot be used is the error that says why.
        names: What the request holds that is not known here.
        ends_at_s: When its time is over, by `time.monotonic`.
    """

    service: Service
    body: B_co
    options: RerankOptions
    query: Input
    documents: Sequence[Input | InvalidInputError]
    names: UnknownNames
    ends_at_s: float

    async def ask_other(self, service: Service, body: RerankRequest) -> Call[RerankRequest]:
        """Return the same query and documents as another model is asked, within the same time.

        Raises:
            RequestValueError: The other model does not take the request.
        """
        # How much time it has of the call's is not for its own settings to say.
        options = await make_options(service, body.model_copy(update={"timeout_ms": None}))
        return Call(service, body, options, self.query, self.documents, self.names, self.ends_at_s)


@dataclass(frozen=True, slots=True)
class Answered(Generic[B_co]):
    """A call, and what it was answered.

    Attributes:
        call: The call.
        answer: What its model answered.
        seconds: How long the model took for it, waiting included.
    """

    call: Call[B_co]
    answer: ServiceAnswer
    seconds: float

    def tell(self) -> ServiceAnswer:
        """Return the answer with what the request held that is not known here, and count that; once for a request."""
        return self.call.names.tell(self.answer, self.call.service.metrics)


class Calls:
    """Reads requests, and has models answer them.

    Args:
        settings: Of the gateway as a whole; what a model has of its own its service knows.
        services: Rank and score.
        fetcher: Fetches images by their URLs; None: nobody does.
        takes_users: Whether the field `user` of a ranking has a meaning here.
    """

    def __init__(
        self, settings: GatewaySettings, services: ModelServices, fetcher: Fetcher | None, *, takes_users: bool
    ) -> None:
        self._strict_fields = settings.strict_fields
        self._services = services
        self._reader = DocumentReader(fetcher, settings.max_request_mb * MIB)
        self._takes_users = takes_users

    async def read_ranking(self, service: Service, body: RerankRequest, began_at_s: float) -> Call[RerankRequest]:
        """Read a request for a ranking; see `read`."""
        check_ranking(service, body)
        return await self.read(service, body, began_at_s, body.query, body.documents, is_ranking=True)

    async def read(
        self,
        service: Service,
        body: B,
        began_at_s: float,
        query: object,
        documents: Sequence[object],
        *,
        is_ranking: bool = False,
    ) -> Call[B]:
        """Check a request, and read query and documents, which cost more.

        Args:
            service: Of the model that has to answer.
            body: The request.
            began_at_s: When it came, by `time.monotonic`.
            query: The query, as JSON has it.
            documents: The documents, likewise.
            is_ranking: Whether it asks for a ranking, and not for scores of pairs.

        Raises:
            RequestValueError: A value cannot be used.
            InvalidInputError: The query cannot be used.
            LycheeError: The server does not say what its model is called.
        """
        names = UnknownNames(strict=self._strict_fields)
        names.check_fields(body)
        if isinstance(body, RerankRequest) and body.user and not (is_ranking and self._takes_users):
            names.note_ignored("user")
        await self._services.check_name(service, body.model, names)
        options = await make_options(service, body)
        parsed_query, *parsed = await self._reader.read([query, *documents], names)
        if isinstance(parsed_query, InvalidInputError):
            raise InvalidInputError(f"query: {parsed_query}")
        for document in parsed:
            if isinstance(document, InvalidInputError):
                service.counts.reject("invalid")
        allowed_s = service.settings.timeout_s if body.timeout_ms is None else body.timeout_ms / 1e3
        return Call(service, body, options, parsed_query, parsed, names, began_at_s + allowed_s)

    async def ask(self, call: Call[B], route: str, *, time_share: float = 1.0) -> Answered[B]:
        """Have a call's model answer it.

        Args:
            call: The call.
            route: The name under which the metrics count it.
            time_share: How much of the time that is left the model has.

        Raises:
            LycheeError: See Service.rerank.
        """
        began_at_s = time.monotonic()
        options: RerankOptions = {**call.options, "timeout_s": max(1e-3, time_share * (call.ends_at_s - began_at_s))}
        answer = await call.service.rerank(
            call.query, call.documents, options, request_id=current_request_id(), route=route
        )
        return Answered(call, answer, time.monotonic() - began_at_s)


def check_ranking(service: Service, body: RerankRequest) -> None:
    """Refuse a ranking that a model does not make.

    Raises:
        RequestValueError: It has no documents or too many, or is to have more results than it may have.
    """
    check_count(service, body)
    if body.top_n and body.min_results > body.top_n:
        raise RequestValueError("min_results is above top_n; expected at most as many", "min_results")


def check_count(service: Service, body: RerankRequest) -> None:
    """Refuse a request without documents, or with too many for a model.

    Raises:
        RequestValueError: It is one.
    """
    most = service.settings.max_documents
    if not 1 <= len(body.documents) <= most:
        message = f"documents has {len(body.documents)} entries; expected 1 to {most}"
        raise RequestValueError(message, "documents")

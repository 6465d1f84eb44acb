"""Callers over gRPC, Triton's HTTP and the gateway's REST. They differ in how a call is sent, and in nothing else.

Each transport has a class for interactive calls and one for bulk. In a closed model a user begins its next call when it
has the answer to the last; in an open one it takes the next arrival. Both count from the time at which the call was to
begin.
"""

from __future__ import annotations

import http
import os
import time
from typing import Any, ClassVar, Final, Protocol

from locust import FastHttpUser, User, task
from lychee_client import Image, ImageText, LycheeClient, LycheeError, ServerOverloadedError

from lychee_loadtest.locust.recorder import CallKind, CallResult
from lychee_loadtest.locust.workload import GRPC, HTTP, REST, Call, Document, Lane, Ranked, find_problem
from lychee_loadtest.payloads import to_data_url

__all__ = [
    "CallSource",
    "Caller",
    "GrpcBulkUser",
    "GrpcUser",
    "RestBulkUser",
    "RestUser",
    "TritonHttpBulkUser",
    "TritonHttpUser",
    "to_input",
]

KEY_VARIABLE: Final = "LYCHEE_API_KEY"
_PAUSE_WHEN_FULL_S: Final = 1.0


class CallSource(Protocol):
    """Where callers get their calls and connections from."""

    think_time_s: float

    def next_call(self, lane: Lane) -> tuple[Call, float] | None:
        """Return a call, when its time has come, and that time (`time.perf_counter`); None: there are no more."""

    def client(self, transport: str) -> LycheeClient:
        """Return the SDK's client that all users of a transport share."""

    def timeout_s(self, lane: Lane) -> float:
        """Return the seconds that a call may take."""


class WrongAnswerError(Exception):
    """The server answered, but not with the scores of all documents, in order."""


class RefusedError(Exception):
    """The server is full.

    Attributes:
        pause_s: How long to wait before coming again.
    """

    def __init__(self, pause_s: float) -> None:
        super().__init__(f"come again in {pause_s:g} s")
        self.pause_s = pause_s


class Caller(User):
    """A caller of any transport.

    Attributes:
        transport: GRPC, HTTP or REST.
        lane: The lane of its calls.
        source: Where calls and connections come from; set before the first user starts.
    """

    abstract = True
    transport: ClassVar[str]
    lane: ClassVar[Lane] = "interactive"
    source: ClassVar[CallSource]

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        self._pause_s = 0.0

    def wait_time(self) -> float:
        """Return the seconds until the next call."""
        return self._pause_s

    @task
    def call(self) -> None:
        """Make one call, check its answer, and report it."""
        next_call = self.source.next_call(self.lane)
        if next_call is None:
            return
        call, began_at_s = next_call
        outcome: CallResult = "answered"
        failure: Exception | None = None
        self._pause_s = self.source.think_time_s
        try:
            problem = find_problem(call, self.send(call))
            if problem is not None:
                failure = WrongAnswerError(problem)
        except RefusedError as error:
            outcome, self._pause_s = "overloaded", error.pause_s
        except (LycheeError, ConnectionError, WrongAnswerError) as error:
            failure = error
        if failure is not None:
            outcome = "failed"
        self.environment.events.request.fire(
            request_type=self.transport,
            name=f"{call.name}: overloaded" if outcome == "overloaded" else call.name,
            response_time=1e3 * (time.perf_counter() - began_at_s),
            response_length=0,
            exception=failure,
            context={
                "kind": CallKind(self.transport, call.lane, call.modality),
                "outcome": outcome,
                "documents": len(call.documents),
            },
        )

    def send(self, call: Call) -> Ranked:
        """Send a call and return what was ranked.

        Raises:
            RefusedError: The server is full.
            LycheeError: It failed in the SDK.
            ConnectionError: It failed in HTTP.
            WrongAnswerError: The answer is none.
        """
        raise NotImplementedError


class SdkCaller(Caller):
    """Calls Triton through LycheeClient."""

    abstract = True

    def send(self, call: Call) -> Ranked:
        """See Caller."""
        documents = [to_input(document) for document in call.documents]
        timeout_s = self.source.timeout_s(self.lane)
        try:
            client = self.source.client(self.transport)
            response = client.rerank(call.query, documents, priority=self.lane, timeout_s=timeout_s)
        except ServerOverloadedError as error:
            raise RefusedError(_PAUSE_WHEN_FULL_S) from error
        if response.errors:
            raise WrongAnswerError(response.errors[0].message)
        return [(result.index, result.relevance_score) for result in response.results]


class RestCaller(Caller, FastHttpUser):
    """Calls the gateway; a key, where it wants one, comes from LYCHEE_API_KEY."""

    abstract = True

    def on_start(self) -> None:
        """Find the key."""
        key = os.environ.get(KEY_VARIABLE)
        self._headers = {"authorization": f"Bearer {key}"} if key else {}

    def send(self, call: Call) -> Ranked:
        """See Caller."""
        documents = [_to_json(document) for document in call.documents]
        body = {"query": call.query, "documents": documents, "priority": self.lane}
        # With catch_response, and without a `with`, Locust reports nothing itself.
        answer: Any = self.client.post("/v1/rerank", json=body, headers=self._headers, catch_response=True)
        if answer.status_code == 0:
            raise ConnectionError(f"no answer: {answer.error!r}")
        if answer.status_code == http.HTTPStatus.TOO_MANY_REQUESTS:
            raise RefusedError(float(answer.headers.get("retry-after", _PAUSE_WHEN_FULL_S)))
        if answer.status_code != http.HTTPStatus.OK:
            raise WrongAnswerError(f"status {answer.status_code}; expected 200 or 429: {(answer.text or '')[:200]}")
        return [(result["index"], result["relevance_score"]) for result in answer.json()["results"]]


class GrpcUser(SdkCaller):
    """Interactive calls to Triton over gRPC."""

    transport = GRPC


class GrpcBulkUser(SdkCaller):
    """Bulk calls to Triton over gRPC."""

    transport = GRPC
    lane = "bulk"


class TritonHttpUser(SdkCaller):
    """Interactive calls to Triton over HTTP."""

    transport = HTTP


class TritonHttpBulkUser(SdkCaller):
    """Bulk calls to Triton over HTTP."""

    transport = HTTP
    lane = "bulk"


class RestUser(RestCaller):
    """Interactive calls to the gateway."""

    transport = REST


class RestBulkUser(RestCaller):
    """Bulk calls to the gateway."""

    transport = REST
    lane = "bulk"


def to_input(document: Document) -> str | Image | ImageText:
    """Return a document as the SDK takes it."""
    if document.jpeg is None:
        return document.text or ""
    image = Image.from_bytes(document.jpeg)
    return image if document.text is None else ImageText(image, document.text)


def _to_json(document: Document) -> dict[str, str]:
    """Return a document as the REST API takes it."""
    fields = {} if document.text is None else {"text": document.text}
    if document.jpeg is not None:
        fields["image"] = to_data_url(document.jpeg)
    return fields

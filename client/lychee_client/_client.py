"""The synchronous client: it waits for what the driver asks it to wait for."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from lychee_client import golden
from lychee_client._base_client import DEFAULT_CONCURRENCY, GOLDEN_TIMEOUT_S, ONCE, BaseClient, check_concurrency
from lychee_client._config import UNSET, Unset
from lychee_client._driver import Steps, WaitFor
from lychee_client._errors import LycheeError
from lychee_client._options import RerankOptions, ScoreOptions
from lychee_client.experiments.events import FeedbackEvent
from lychee_client.manifest.manifest import Manifest
from lychee_client.served_models import ServedModel
from lychee_client.types import Input, ManyResult, ModelTimings, RerankResponse, ServerStatus

if TYPE_CHECKING:
    from typing_extensions import Unpack  # of typing from Python 3.11 on

T = TypeVar("T")


class LycheeClient(BaseClient):
    """Ranks texts and images with a lychee-rerank server. Safe to use from several threads; close it after use.

    The constructor does no network. The first call fetches the server's manifest and, unless it is cached on disk,
    the tokenizer, and keeps them until the server has another model: the call that meets it fetches them again and is
    repeated as a whole, so that no answer mixes two models.

    Args:
        url: Triton's address, "HOST:PORT" or "grpc://HOST:PORT" for gRPC, "http://HOST:PORT" for HTTP; or a gateway's,
            "http://HOST:PORT", also without a port or with a path. "grpcs://" and "https://" are with TLS. The first
            call finds out which of the two answers. Replicas are the addresses of a name, or a list: "A:8001,B:8001".
            The default is LYCHEE_URL, then "localhost:8001".
        timeout_s: Seconds for one whole call; None waits forever. The default is LYCHEE_TIMEOUT_S, then 30.
        policy: The policy of every `rerank` that names no other: "strict", "balanced", "exploratory", a Policy or a
            Calibration.
        max_img_size: The most pixels of one image, as the side of a square, for a model that reads images in their own
            size: fewer pixels cost less time, and detail. None keeps to what the model was exported with. The default
            is LYCHEE_MAX_IMG_SIZE, then None.
        transport: Replaces the connection, for tests and servers in this process: something that has the methods of
            `lychee_client.transports.base.Transport`.
        embedding_cache: Keeps the embeddings of documents' texts and images, so that those which come again are neither
            decoded, sent nor computed; of a cross-encoder, which reads a document together with its query, the scores
            of pairs. The default is a MemoryEmbeddingCache of 64 MiB; None keeps nothing. Golden pairs never use it.
        executor: The threads that decode and tokenize, for programs with threads of another kind (gevent), and for many
            clients that share some; `close` leaves them running. With None the client has up to four of its own for
            texts, and as many for images.
        tls: The certificates, for "grpcs" and "https". None takes those of the system.
        headers: The headers that every request carries, as gRPC metadata or HTTP headers.
        keepalive_s: Seconds without traffic after which gRPC sends a ping and HTTP closes a connection. None leaves it
            to the libraries.
        max_retries: How often a request that failed with a retryable error is sent again.
        shared_memory: Whether larger tensors travel through shared memory, to a server on this host.
        api_key: The key that opens a gateway. It is sent to gateways alone, as the header x-api-key, and stands in no
            message. The default is LYCHEE_API_KEY, then none.
        tracer: Makes spans of calls, and tells gateway and Triton of them: OpenTelemetryTracer() of
            `lychee_client.tracing.opentelemetry`. None makes none.
        model: The name of the model that is meant, of a gateway's several; of another server's only model it must be
            the name, so that none is taken for another. None leaves the choice to the server. The default is
            LYCHEE_MODEL, then None.

    Raises:
        ConfigurationError: An argument, or the environment variable in its place, cannot be used.
    """

    def __enter__(self) -> LycheeClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release connection and threads. A call in flight fails with ConnectionFailedError."""
        self._release()

    def manifest(self) -> Manifest:
        """Return what the server says about its model; the first call fetches it.

        Raises:
            ContractError: The server's model does not fit this client.
            LycheeError: The server cannot serve the request.
        """
        return self._carry_out(self._calls.manifest(), self._config.timeout_s)

    def models(self) -> tuple[ServedModel, ...]:
        """Return the models that are served, those of a gateway as far as they have been ready, its default first.

        Raises:
            ConfigurationError: A Triton serves another model than the client's.
            LycheeError: The server cannot serve the request.
        """
        return self._carry_out(self._calls.models(), self._config.timeout_s)

    def rerank(self, query: Input, documents: Sequence[Input], **options: Unpack[RerankOptions]) -> RerankResponse:
        """Score every document against the query and rank them.

        A document that cannot be ranked (empty text, damaged image, too large, refused by a model that took others)
        becomes an entry in `errors`; the others are ranked. A failure of the server is no document's: it is tried
        again within the time of the call, then raised. What works but does not fit together (an instruction for a model
        that reads none, a calibration made with another model or instruction) is in `warnings`, and a LycheeWarning the
        first time.

        Args:
            query: A `str` is always text, never a path. With an ImageText, both parts count: a dual encoder weighs them
                equally, a cross-encoder reads them together.
            documents: Any mix of texts and images. An empty list gives an empty response without a request.
            options: See RerankOptions.

        Raises:
            InvalidInputError: The query cannot be used, or `documents` is one string.
            ConfigurationError: Another argument cannot be used, or `max_img_size` is below the model's minimum.
            ConnectionFailedError: The server cannot be reached, or the client is closed.
            DeadlineExceededError: The call took longer than `timeout_s`.
            ServerError: The server cannot serve the call: ModelNotReadyError, ServerOverloadedError, InferenceError,
                or RequestRejectedError where a model refused the query or every document.
            ContractError: The server's model or answers do not fit this client.
        """
        return self._rerank(query, documents, options)

    def rerank_many(
        self,
        calls: Iterable[tuple[Input, Sequence[Input]]],
        *,
        concurrency: int = DEFAULT_CONCURRENCY,
        **options: Unpack[RerankOptions],
    ) -> Iterator[ManyResult]:
        """Rank many queries, each with its own documents; yield the outcomes in order.

        At most `concurrency` calls are under way or wait to be fetched, so memory stays bounded however many there
        are. A call that fails does not end the others: its outcome holds the error.

        Args:
            calls: The pairs of query and documents; they are read as results are fetched.
            concurrency: How many calls are under way at the same time, at least 1.
            options: See RerankOptions; they hold for every call, `timeout_s` and `request_id` too.

        Raises:
            ConfigurationError: `concurrency` or an option cannot be used.
        """
        check_concurrency(concurrency)
        with ThreadPoolExecutor(concurrency, thread_name_prefix="lychee-many") as pool:
            running: deque[Future[ManyResult]] = deque()
            try:
                for index, (query, documents) in enumerate(calls):
                    if len(running) >= concurrency:
                        yield running.popleft().result()
                    one = partial(self._rerank_one, index, query, documents, options)
                    running.append(pool.submit(copy_context().run, one))  # for the span that is current here
                while running:
                    yield running.popleft().result()
            finally:
                for future in running:
                    future.cancel()

    def _rerank_one(self, index: int, query: Input, documents: Sequence[Input], options: RerankOptions) -> ManyResult:
        try:
            return ManyResult(index, self._rerank(query, documents, options), None)
        except LycheeError as error:
            return ManyResult(index, None, error)

    def score(self, query: Input, document: Input, **options: Unpack[ScoreOptions]) -> float:
        """Return the relevance score of one pair, in [0, 1].

        Args:
            query: See `rerank`.
            document: A text or an image.
            options: See ScoreOptions.

        Raises:
            LycheeError: Whatever `rerank` raises, and also the error of the document, which `rerank` would put into
                `errors`.
        """
        return self._rank(self._calls.score(query, document, options), options)

    def feedback(
        self, ranking_id: str, events: Sequence[FeedbackEvent], timeout_s: float | Unset | None = UNSET
    ) -> None:
        """Tell a gateway what a user did with a ranking, for its experiment; all events are written down or none.

        A call that failed on its way may be written down; sent again, only events with an `id` count once.

        Args:
            ranking_id: The response's `ranking_id`.
            events: What the user did.
            timeout_s: Seconds to wait for the answer. None waits forever. The default is the client's.

        Raises:
            ConfigurationError: The URL is Triton's.
            RequestRejectedError: An event cannot be used, or the gateway runs no experiment.
            LycheeError: The gateway cannot write them down, or does not answer.
        """
        seconds = self._config.timeout_s if isinstance(timeout_s, Unset) else timeout_s
        self._carry_out(self._calls.feedback(ranking_id, events), seconds)

    def check_golden_pairs(self, timeout_s: float | None = GOLDEN_TIMEOUT_S) -> golden.GoldenReport:
        """Replay the manifest's golden pairs against the live server.

        Args:
            timeout_s: Seconds for all pairs. None waits forever.

        Raises:
            LycheeError: The manifest cannot be fetched, or a pair cannot be scored.
        """
        return self._carry_out(self._calls.check_golden_pairs(), timeout_s)

    def probe(self, model_name: str, timeout_s: float | None = 5.0) -> None:
        """Have one model compute the smallest thing that it can, once, without any cache.

        Args:
            model_name: One of the manifest's `asked_models`.
            timeout_s: Seconds to wait for the answer. None waits forever.

        Raises:
            LycheeError: It does not answer, or not what it should.
        """
        wait_for_steps(self._drive(self._calls.probe(model_name), timeout_s, retry=ONCE))

    def is_ready(self, timeout_s: float | None = 5.0) -> bool:
        """Say whether the server answers in time and all its models are ready.

        Args:
            timeout_s: Seconds to wait for the answer. None waits forever.
        """
        try:
            return self._carry_out(self._readiness.is_ready(), timeout_s)
        except LycheeError:
            return False

    def model_timings(self, timeout_s: float | None = 5.0) -> Mapping[str, ModelTimings]:
        """Return what the server has counted for each model since it loaded it; models without requests are left out.

        Args:
            timeout_s: Seconds to wait for the answer. None waits forever.

        Raises:
            LycheeError: The server does not answer.
        """
        return self._carry_out(self._calls.model_timings(), timeout_s)

    def server_status(self) -> ServerStatus:
        """Return what the server says about itself; one that cannot be reached is not live.

        Raises:
            DeadlineExceededError: It did not answer in time.
            ConnectionFailedError: The client is closed.
        """
        status = self._carry_out(self._readiness.server_status(), self._config.timeout_s)
        return replace(status, replicas=self.replicas)

    def wait_until_ready(self, timeout_s: float | None = 60.0) -> None:
        """Return as soon as the server has loaded every model that this client needs.

        Args:
            timeout_s: Seconds to wait. None waits forever.

        Raises:
            DeadlineExceededError: It is not ready by then; the message names the first model that is missing.
            ConnectionFailedError: The client is closed.
        """
        self._carry_out(self._readiness.wait_until_ready(), timeout_s)

    def _rerank(self, query: Input, documents: Sequence[Input], options: RerankOptions) -> RerankResponse:
        return self._rank(self._calls.rerank(query, documents, options), options)

    def _rank(self, call: Coroutine[Any, Any, T], options: ScoreOptions) -> T:
        timeout_s, priority = self._calls.timeout_s(options), options.get("priority", "interactive")
        request_id, tracer = options.get("request_id"), self._tracer
        return wait_for_steps(self._drive(call, timeout_s, request_id, priority=priority, tracer=tracer))

    def _carry_out(self, call: Coroutine[Any, Any, T], timeout_s: float | None) -> T:
        return wait_for_steps(self._drive(call, timeout_s))


def wait_for_steps(steps: Steps[T]) -> T:
    """Carry out the steps of a driver, one after the other."""
    try:
        step = next(steps)
        while True:
            outcome = None
            try:
                if isinstance(step, WaitFor):
                    outcome = step.future.result(step.timeout_s)
                else:
                    time.sleep(step.duration_s)
            except Exception as error:  # the driver knows what it means
                step = steps.throw(error)
            else:
                step = steps.send(outcome)
    except StopIteration as stop:
        result: T = stop.value
        return result
    finally:
        steps.close()

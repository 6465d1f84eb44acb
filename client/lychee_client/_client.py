"""The synchronous client: it waits for what the driver asks it to wait for."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import TypeVar, Unpack

from lychee_client import golden
from lychee_client._base_client import DEFAULT_CONCURRENCY, GOLDEN_TIMEOUT_S, BaseClient, check_concurrency
from lychee_client._calls import RerankOptions
from lychee_client._driver import Steps, WaitFor
from lychee_client._errors import LycheeError
from lychee_client._manifest import Manifest
from lychee_client._plan import Plan
from lychee_client._types import Input, ManyResult, RerankResponse, ServerStatus

T = TypeVar("T")


class LycheeClient(BaseClient):
    """Ranks texts and images with a lychee-rerank server. Safe to use from several threads; close it after use.

    The constructor does no network. The first call fetches the server's manifest and, unless it is cached on disk,
    the tokenizer, and keeps them: after the server got another model, make a new client.

    Args:
        url: "HOST:PORT" or "grpc://HOST:PORT" for gRPC, "http://HOST:PORT" for HTTP, "grpcs://" and "https://" with
            TLS. Default: LYCHEE_URL, then "localhost:8001".
        timeout_s: Seconds for one whole call; None waits forever. Default: LYCHEE_TIMEOUT_S, then 30.
        policy: Default policy of `rerank`: "strict", "balanced", "exploratory", a Policy or a Calibration.
        max_img_size: Most pixels of one image, as the side of a square, for a model that reads images in their own
            size: fewer pixels cost less time, and detail. None: what the model was exported with. Default:
            LYCHEE_MAX_IMG_SIZE, then None.
        transport: Replaces the connection, for tests and servers in this process: see `_transports.base.Transport`.
        embedding_cache: Keeps the embeddings of documents' texts and images, so that those which come again are neither
            decoded, sent nor computed; None keeps nothing. Used with dual encoders (a cross-encoder reads a document
            together with its query, and has nothing to keep) and never for golden pairs.
        executor: Threads that decode and tokenize, for programs with threads of another kind (gevent), and for many
            clients that share some; `close` leaves them running. None: up to four of the client's own.
        **options: `tls`, a TlsConfig; `headers`, sent with every request; `keepalive_s`, seconds without traffic
            after which gRPC pings and HTTP closes a connection; `max_retries`, of a request that failed with a
            retryable error, 2 by default.

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

    @property
    def manifest(self) -> Manifest:
        """What the server says about its model; fetched at first use.

        Raises:
            ContractError: The server's model does not fit this client.
            LycheeError: The server cannot serve the request.
        """
        return self._carry_out(self._calls.manifest(), self._config.timeout_s)

    def rerank(self, query: Input, documents: Sequence[Input], **options: Unpack[RerankOptions]) -> RerankResponse:
        """Score every document against the query and rank them.

        A document that cannot be ranked (empty text, damaged image, refused by the server) becomes an entry in
        `errors`; the others are ranked. What works but does not fit together (an instruction for a model that reads
        none, a calibration made with another model or instruction) is in `warnings`, and a LycheeWarning the first
        time.

        Args:
            query: A `str` is always text, never a path. With an ImageText, both parts count: a dual encoder weighs them
                equally, a cross-encoder reads them together.
            documents: Any mix of texts and images. An empty list gives an empty response without a request.
            **options: See RerankOptions.

        Raises:
            InvalidInputError: The query cannot be used, or `documents` is one string.
            ConfigurationError: Another argument cannot be used, or `max_img_size` is below the model's minimum.
            ConnectionFailedError: The server cannot be reached, or the client is closed.
            DeadlineExceededError: The call took longer than `timeout_s`.
            ServerError: The server cannot serve the call: ModelNotReadyError, ServerOverloadedError, or about the
                query RequestRejectedError or InferenceError.
            ContractError: The server's model or answers do not fit this client.
        """
        return self._rank(self._calls.rerank(query, documents, options), options)

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
            calls: Pairs of query and documents; read as results are fetched.
            concurrency: At least 1.
            **options: Of each call; see RerankOptions.

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
                    running.append(pool.submit(self._rerank_one, index, query, documents, options))
                while running:
                    yield running.popleft().result()
            finally:
                for future in running:
                    future.cancel()

    def _rerank_one(self, index: int, query: Input, documents: Sequence[Input], options: RerankOptions) -> ManyResult:
        try:
            return ManyResult(index, self.rerank(query, documents, **options), None)
        except LycheeError as error:
            return ManyResult(index, None, error)

    def score(self, query: Input, document: Input, **options: Unpack[RerankOptions]) -> float:
        """Return the relevance score of one pair, in [0, 1].

        Raises:
            LycheeError: As `rerank`; and what is wrong with the document.
        """
        return self._rank(self._calls.score(query, document, options), options)

    def check_golden_pairs(self, timeout_s: float | None = GOLDEN_TIMEOUT_S) -> golden.GoldenReport:
        """Replay the manifest's golden pairs against the live server.

        Args:
            timeout_s: Seconds for all pairs. None waits forever.

        Raises:
            LycheeError: The manifest cannot be fetched, or a pair cannot be scored.
        """
        return self._carry_out(self._calls.check_golden_pairs(), timeout_s)

    def server_status(self) -> ServerStatus:
        """Return what the server says about itself; one that cannot be reached is not live.

        Raises:
            DeadlineExceededError: It did not answer in time.
            ConnectionFailedError: The client is closed.
        """
        return self._carry_out(self._calls.server_status(), self._config.timeout_s)

    def wait_until_ready(self, timeout_s: float | None = 60.0) -> None:
        """Return as soon as the server has loaded every model that this client needs.

        Args:
            timeout_s: Seconds to wait. None waits forever.

        Raises:
            DeadlineExceededError: It is not ready by then; the message names the first model that is missing.
            ConnectionFailedError: The client is closed.
        """
        self._carry_out(self._calls.wait_until_ready(), timeout_s)

    def _rank(self, plan: Plan[T], options: RerankOptions) -> T:
        return wait_for_steps(self._drive(plan, self._calls.timeout_s(options), options.get("request_id")))

    def _carry_out(self, plan: Plan[T], timeout_s: float | None) -> T:
        return wait_for_steps(self._drive(plan, timeout_s))


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

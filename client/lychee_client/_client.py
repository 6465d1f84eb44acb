"""The synchronous client: a thin shell that carries out the plans of the pure core."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Final, TypeVar

from lychee_client import golden
from lychee_client._assets import CLIENT_ASSETS, fetch_assets
from lychee_client._config import DEFAULT_POLICY, UNSET, Unset, cache_dir, load_config
from lychee_client._deadline import Deadline
from lychee_client._driver import Driver
from lychee_client._errors import ConnectionFailedError, InvalidInputError
from lychee_client._manifest import Manifest
from lychee_client._pipelines.dual_encoder import DualEncoder, check_input
from lychee_client._plan import Plan
from lychee_client._ranking import check_selection, rank
from lychee_client._text import TextProcessor
from lychee_client._transports.base import Transport
from lychee_client._types import Input, RerankResponse, Timings
from lychee_client.thresholds import Policy, get_policy

MAX_WORKERS: Final = 4
POLL_INTERVAL_S: Final = 0.1

T = TypeVar("T")


class LycheeClient:
    """Ranks texts and images with a lychee-rerank server. Safe to use from several threads; close it after use.

    The constructor does no network. The first call fetches the server's manifest and, unless it is cached on disk,
    the tokenizer, and keeps them: after the server got another model, make a new client.

    Args:
        url: "HOST:PORT" of the gRPC endpoint. Default: LYCHEE_URL, then "localhost:8001".
        timeout_s: Seconds for one whole call; None waits forever. Default: LYCHEE_TIMEOUT_S, then 30.
        policy: Default policy of `rerank`: "strict", "balanced", "exploratory", or a Policy.
        transport: Replaces the gRPC connection, for tests.

    Raises:
        ConfigurationError: An argument, or the environment variable in its place, cannot be used.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        timeout_s: float | Unset | None = UNSET,
        policy: str | Policy = DEFAULT_POLICY,
        transport: Transport | None = None,
    ) -> None:
        self._config = load_config(url, timeout_s, policy)
        if transport is None:
            from lychee_client._transports.grpc import GrpcTransport  # imports gRPC: a fifth of a second

            transport = GrpcTransport(self._config.url)
        self._transport = transport
        self._pool = ThreadPoolExecutor(min(MAX_WORKERS, os.cpu_count() or 1), thread_name_prefix="lychee-client")
        self._lock = threading.Lock()
        self._loaded: tuple[Manifest, DualEncoder] | None = None
        self._closed = False

    def __enter__(self) -> LycheeClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release connection and threads. A call in flight fails with ConnectionFailedError."""
        self._closed = True
        self._transport.close()
        self._pool.shutdown(wait=False, cancel_futures=True)

    @property
    def manifest(self) -> Manifest:
        """What the server says about its model; fetched at first use.

        Raises:
            ContractError: The server's model does not fit this client.
            LycheeError: The server cannot serve the request.
        """
        return self._load(Deadline(self._config.timeout_s))[0]

    def rerank(
        self,
        query: Input,
        documents: Sequence[Input],
        *,
        top_n: int | None = None,
        score_threshold: float | None = None,
        policy: str | Policy | None = None,
        timeout_s: float | Unset | None = UNSET,
    ) -> RerankResponse:
        """Score every document against the query and rank them.

        A document that cannot be ranked (empty text, damaged image, refused by the server) becomes an entry in
        `errors`; the others are ranked.

        Args:
            query: A `str` is always text, never a path. With an ImageText, both parts count equally.
            documents: Any mix of texts and images. An empty list gives an empty response without a request.
            top_n: At most so many results. None: all.
            score_threshold: Inclusive; results below it are left out. None: no threshold.
            policy: Labels each result with a decision. None: the client's.
            timeout_s: Seconds for the whole call. None waits forever. Default: the client's.

        Raises:
            InvalidInputError: The query cannot be used, or `documents` is one string.
            ConfigurationError: Another argument cannot be used.
            ConnectionFailedError: The server cannot be reached, or the client is closed.
            DeadlineExceededError: The call took longer than `timeout_s`.
            ServerError: The server cannot serve the call: ModelNotReadyError, ServerOverloadedError, or about the
                query RequestRejectedError or InferenceError.
            ContractError: The server's model or answers do not fit this client.
        """
        check_selection(top_n, score_threshold)
        thresholds = self._config.policy if policy is None else get_policy(policy)
        deadline = Deadline(self._config.timeout_s if isinstance(timeout_s, Unset) else timeout_s)
        try:
            check_input(query)
        except InvalidInputError as error:
            raise InvalidInputError(f"query: {error}") from error
        if isinstance(documents, (str, bytes)):
            raise InvalidInputError(f"documents is one {type(documents).__name__}, expected a list of documents")
        documents = list(documents)
        if not documents:
            return RerankResponse((), (), Timings())
        _, pipeline = self._load(deadline)
        return rank(self._carry_out(pipeline.rerank(query, documents), deadline), thresholds, top_n, score_threshold)

    def score(self, query: Input, document: Input, *, timeout_s: float | Unset | None = UNSET) -> float:
        """Return the relevance score of one pair, in [0, 1].

        Raises:
            LycheeError: As `rerank`; and what is wrong with the document.
        """
        response = self.rerank(query, [document], timeout_s=timeout_s)
        for failed in response.errors:
            raise failed.error
        return response.results[0].relevance_score

    def check_golden_pairs(self) -> golden.GoldenReport:
        """Replay the manifest's golden pairs against the live server.

        Raises:
            LycheeError: The manifest cannot be fetched, or a pair cannot be scored.
        """
        pairs = golden.golden_inputs(self.manifest)
        return golden.golden_report(self.manifest, [self.score(query, document) for query, document in pairs])

    def wait_until_ready(self, timeout_s: float | None = 60.0) -> None:
        """Return as soon as the server has loaded every model that this client needs.

        Args:
            timeout_s: Seconds to wait. None waits forever.

        Raises:
            DeadlineExceededError: It is not ready by then; the message names the first model that is missing.
            ConnectionFailedError: The client is closed.
        """
        deadline = Deadline(timeout_s)
        self._wait_for_model(CLIENT_ASSETS, deadline)
        for model_name in self._load(deadline)[0].max_batch_size:
            self._wait_for_model(model_name, deadline)

    def _wait_for_model(self, model_name: str, deadline: Deadline) -> None:
        waiting_for = f"{model_name} on {self._config.url} to be ready"
        while not self._transport.is_model_ready(model_name, deadline.remaining_s(waiting_for)):
            if self._closed:
                raise ConnectionFailedError("the client is closed; make a new one")
            time.sleep(min(POLL_INTERVAL_S, deadline.remaining_s(waiting_for) or POLL_INTERVAL_S))

    def _load(self, deadline: Deadline) -> tuple[Manifest, DualEncoder]:
        with self._lock:
            if self._loaded is None:
                assets = self._carry_out(fetch_assets(cache_dir()), deadline)
                text_processor = TextProcessor(assets.tokenizer_json, assets.manifest.text)
                self._loaded = assets.manifest, DualEncoder(assets.manifest, text_processor)
            return self._loaded

    def _carry_out(self, plan: Plan[T], deadline: Deadline) -> T:
        if self._closed:
            raise ConnectionFailedError("the client is closed; make a new one")
        return Driver(self._transport, self._pool, deadline).drive(plan)

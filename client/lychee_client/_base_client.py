"""What the synchronous and the asynchronous client are made of."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from concurrent.futures import Executor
from typing import Any, Final, TypeVar

from lychee_client._calls import Calls
from lychee_client._config import DEFAULT_POLICY, NO_HEADERS, UNSET, Unset, check_request_id, load_config
from lychee_client._connect import connect
from lychee_client._deadline import Deadline
from lychee_client._driver import CLOSED, Driver, Steps
from lychee_client._embedding_cache import EmbeddingCache
from lychee_client._errors import ConfigurationError, ConnectionFailedError, LycheeError
from lychee_client._gateway.discovery import Discovery
from lychee_client._readiness import Readiness
from lychee_client._retry import DEFAULT_MAX_RETRIES, RetryPolicy
from lychee_client._workers import Workers
from lychee_client.calibration import Calibration
from lychee_client.memory_cache import MemoryEmbeddingCache
from lychee_client.thresholds import Policy
from lychee_client.tracing.spans import Tracer
from lychee_client.transports.base import ControlRequest, Transport
from lychee_client.transports.connection import TlsConfig
from lychee_client.transports.replica import ReplicaStatus
from lychee_client.transports.replicas import Replicas
from lychee_client.transports.shared_memory import SharedMemoryPool
from lychee_client.types import Priority

DEFAULT_CONCURRENCY: Final = 4
ONCE: Final = RetryPolicy(0)
DEFAULT_CACHE_BYTES: Final = 64 * 2**20  # of a client that was given no cache: 28,000 embeddings of 512 numbers
GOLDEN_TIMEOUT_S: Final = 300.0  # several pairs, perhaps of a large model on a CPU

T = TypeVar("T")


class BaseClient:
    """Holds a client's settings, transport and threads. Its arguments are documented by LycheeClient."""

    def __init__(
        self,
        url: str | None = None,
        *,
        timeout_s: float | Unset | None = UNSET,
        policy: str | Policy | Calibration = DEFAULT_POLICY,
        max_img_size: int | Unset | None = UNSET,
        transport: Transport | None = None,
        embedding_cache: EmbeddingCache | Unset | None = UNSET,
        executor: Executor | None = None,
        tls: TlsConfig | None = None,
        headers: Mapping[str, str] = NO_HEADERS,
        keepalive_s: float | None = None,
        max_retries: int = DEFAULT_MAX_RETRIES,
        shared_memory: bool = False,
        api_key: str | None = None,
        tracer: Tracer | None = None,
        model: str | Unset | None = UNSET,
    ) -> None:
        self._config = load_config(
            url, timeout_s, policy, max_img_size, tls, headers, keepalive_s, max_retries, shared_memory, api_key, model
        )
        for_triton = {
            "max_img_size": self._config.max_img_size is not None,
            "embedding_cache": embedding_cache is not None and not isinstance(embedding_cache, Unset),
            "shared_memory": shared_memory,
        }
        self._shared_memory = SharedMemoryPool() if self._config.shared_memory else None
        if isinstance(embedding_cache, Unset):
            embedding_cache = MemoryEmbeddingCache(DEFAULT_CACHE_BYTES)
        self._answered_at: dict[str, float] = {}
        discovery = Discovery(
            self._config,
            [name for name, given in for_triton.items() if given],
            may_be_gateway=transport is None and not self._config.is_grpc,
        )
        self._calls = Calls(self._config, self._shared_memory, embedding_cache, self._answered_at, discovery)
        self._readiness = Readiness(self._calls)
        self._retry = RetryPolicy(self._config.max_retries)
        self._tracer = tracer
        traced = tracer is not None
        self._transport = connect(self._config, self._shared_memory, traced=traced) if transport is None else transport
        self._workers = Workers(executor)

    @property
    def answered_at(self) -> Mapping[str, float]:
        """When each model last answered this client, by `time.monotonic`; without those that never did."""
        return self._answered_at

    @property
    def replicas(self) -> tuple[ReplicaStatus, ...]:
        """The servers among which this client spreads its requests; empty where the URL has a single address."""
        return self._transport.statuses() if isinstance(self._transport, Replicas) else ()

    @property
    def sent_again(self) -> Mapping[str, int]:
        """How many requests a second replica got, because the first took long ("slow") or failed ("failed")."""
        transport = self._transport
        return transport.sent_again() if isinstance(transport, Replicas) else {"slow": 0, "failed": 0}

    def _drive(
        self,
        call: Coroutine[Any, Any, T],
        timeout_s: float | None,
        request_id: str | None = None,
        retry: RetryPolicy | None = None,
        priority: Priority = "interactive",
        tracer: Tracer | None = None,
    ) -> Steps[T]:
        """Return the steps of one call; its deadline begins now, and the span of what is traced with its first step.

        Raises:
            ConfigurationError: The call's own id cannot be used.
            ConnectionFailedError: The client is closed.
        """
        try:
            check_request_id(request_id)
            if self._calls.closed:
                raise ConnectionFailedError(CLOSED, request_id=request_id)
            deadline = Deadline(timeout_s)
        except LycheeError:
            call.close()  # it never begins
            raise
        jobs = self._workers.open_call(bulk=priority == "bulk")
        retry, answered_at = retry or self._retry, self._answered_at
        driver = Driver(self._transport, self._config.url, jobs, deadline, retry, request_id, answered_at, tracer)
        return driver.drive(call)

    def _release(self) -> None:
        if self._calls.closed:
            return
        self._calls.closed = True
        if self._shared_memory is not None and self._shared_memory.active:
            self._transport.close(ControlRequest("unregister_region", self._shared_memory.name))
        else:
            self._transport.close()
        if self._shared_memory is not None:
            self._shared_memory.close()
        self._workers.shutdown()


def check_concurrency(concurrency: int) -> None:
    """Accept a number of simultaneous calls.

    Raises:
        ConfigurationError: It is below 1.
    """
    if concurrency < 1:
        raise ConfigurationError(f"concurrency is {concurrency}; expected at least 1")

"""The asynchronous client: it awaits what the driver asks it to wait for."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Coroutine, Iterable, Mapping, Sequence
from dataclasses import replace
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


class AsyncLycheeClient(BaseClient):
    """LycheeClient for asyncio: the same arguments, calls and errors.

    Cancelling a call also cancels its requests where the server survives that. Preprocessing runs in threads. One
    client may serve several event loops.

    Args:
        url: See LycheeClient.
        timeout_s: See LycheeClient.
        policy: See LycheeClient.
        max_img_size: See LycheeClient.
        transport: See LycheeClient.
        embedding_cache: See LycheeClient.
        executor: See LycheeClient.
        tls: See LycheeClient.
        headers: See LycheeClient.
        keepalive_s: See LycheeClient.
        max_retries: See LycheeClient.
        shared_memory: See LycheeClient.
        api_key: See LycheeClient.
        model: See LycheeClient.

    Raises:
        ConfigurationError: An argument, or the environment variable in its place, cannot be used.
    """

    async def __aenter__(self) -> AsyncLycheeClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """See LycheeClient.close."""
        await asyncio.to_thread(self._release)

    async def manifest(self) -> Manifest:
        """See LycheeClient.manifest."""
        return await self._carry_out(self._calls.manifest(), self._config.timeout_s)

    async def models(self) -> tuple[ServedModel, ...]:
        """See LycheeClient.models."""
        return await self._carry_out(self._calls.models(), self._config.timeout_s)

    async def rerank(
        self, query: Input, documents: Sequence[Input], **options: Unpack[RerankOptions]
    ) -> RerankResponse:
        """See LycheeClient.rerank, also for the arguments."""
        return await self._rerank(query, documents, options)

    async def rerank_many(
        self,
        calls: Iterable[tuple[Input, Sequence[Input]]] | AsyncIterable[tuple[Input, Sequence[Input]]],
        *,
        concurrency: int = DEFAULT_CONCURRENCY,
        **options: Unpack[RerankOptions],
    ) -> AsyncIterator[ManyResult]:
        """See LycheeClient.rerank_many; `calls` may be asynchronous too."""
        check_concurrency(concurrency)
        running: deque[asyncio.Task[ManyResult]] = deque()
        index = 0
        try:
            async for query, documents in _iterate(calls):
                if len(running) >= concurrency:
                    yield await running.popleft()
                running.append(asyncio.create_task(self._rerank_one(index, query, documents, options)))
                index += 1
            while running:
                yield await running.popleft()
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _rerank_one(
        self, index: int, query: Input, documents: Sequence[Input], options: RerankOptions
    ) -> ManyResult:
        try:
            return ManyResult(index, await self._rerank(query, documents, options), None)
        except LycheeError as error:
            return ManyResult(index, None, error)

    async def score(self, query: Input, document: Input, **options: Unpack[ScoreOptions]) -> float:
        """See LycheeClient.score, also for the arguments."""
        return await self._rank(self._calls.score(query, document, options), options)

    async def feedback(
        self, ranking_id: str, events: Sequence[FeedbackEvent], timeout_s: float | Unset | None = UNSET
    ) -> None:
        """See LycheeClient.feedback."""
        seconds = self._config.timeout_s if isinstance(timeout_s, Unset) else timeout_s
        await self._carry_out(self._calls.feedback(ranking_id, events), seconds)

    async def check_golden_pairs(self, timeout_s: float | None = GOLDEN_TIMEOUT_S) -> golden.GoldenReport:
        """See LycheeClient.check_golden_pairs."""
        return await self._carry_out(self._calls.check_golden_pairs(), timeout_s)

    async def probe(self, model_name: str, timeout_s: float | None = 5.0) -> None:
        """See LycheeClient.probe."""
        await await_steps(self._drive(self._calls.probe(model_name), timeout_s, retry=ONCE))

    async def is_ready(self, timeout_s: float | None = 5.0) -> bool:
        """See LycheeClient.is_ready."""
        try:
            return await self._carry_out(self._readiness.is_ready(), timeout_s)
        except LycheeError:
            return False

    async def model_timings(self, timeout_s: float | None = 5.0) -> Mapping[str, ModelTimings]:
        """See LycheeClient.model_timings."""
        return await self._carry_out(self._calls.model_timings(), timeout_s)

    async def server_status(self) -> ServerStatus:
        """See LycheeClient.server_status."""
        status = await self._carry_out(self._readiness.server_status(), self._config.timeout_s)
        return replace(status, replicas=self.replicas)

    async def wait_until_ready(self, timeout_s: float | None = 60.0) -> None:
        """See LycheeClient.wait_until_ready."""
        await self._carry_out(self._readiness.wait_until_ready(), timeout_s)

    async def _rerank(self, query: Input, documents: Sequence[Input], options: RerankOptions) -> RerankResponse:
        return await self._rank(self._calls.rerank(query, documents, options), options)

    async def _rank(self, call: Coroutine[Any, Any, T], options: ScoreOptions) -> T:
        timeout_s, priority = self._calls.timeout_s(options), options.get("priority", "interactive")
        request_id, tracer = options.get("request_id"), self._tracer
        return await await_steps(self._drive(call, timeout_s, request_id, priority=priority, tracer=tracer))

    async def _carry_out(self, call: Coroutine[Any, Any, T], timeout_s: float | None) -> T:
        return await await_steps(self._drive(call, timeout_s))


async def await_steps(steps: Steps[T]) -> T:
    """Carry out the steps of a driver, one after the other."""
    try:
        step = next(steps)
        while True:
            outcome = None
            try:
                if isinstance(step, WaitFor):
                    outcome = await _await_future(step)
                else:
                    await asyncio.sleep(step.duration_s)
            except Exception as error:  # the driver knows what it means
                step = steps.throw(error)
            else:
                step = steps.send(outcome)
    except StopIteration as stop:
        result: T = stop.value
        return result
    finally:
        steps.close()


async def _await_future(step: WaitFor) -> Any:
    if step.future.done():
        return step.future.result()
    waiting = asyncio.wrap_future(step.future)
    try:
        await asyncio.wait([waiting], timeout=step.timeout_s)  # wait_for forgets a cancellation that comes late
        if not waiting.done():
            raise TimeoutError
        if waiting.cancelled():  # not we were cancelled, but the future
            raise concurrent.futures.CancelledError
        return waiting.result()
    finally:
        waiting.cancel()


async def _iterate(
    calls: Iterable[tuple[Input, Sequence[Input]]] | AsyncIterable[tuple[Input, Sequence[Input]]],
) -> AsyncIterator[tuple[Input, Sequence[Input]]]:
    if isinstance(calls, AsyncIterable):
        async for call in calls:
            yield call
    else:
        for call in calls:
            yield call

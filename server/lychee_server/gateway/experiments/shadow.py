"""A shadow: a share of the calls is sent to another model as well, behind the caller's back and at nobody's cost."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from lychee_client import DeadlineExceededError, Image, ImageText, InvalidInputError, LycheeError, RerankOptions
from lychee_client.experiments.agreement import kendall_tau_b
from lychee_client.experiments.records import describe_side
from lychee_client.types import Images, Input, images_of, text_of
from prometheus_client import CollectorRegistry, Counter, Histogram

from lychee_server.defaults import MIB
from lychee_server.gateway.experiments.experiment_file import ShadowSettings
from lychee_server.gateway.limits import TooBusyError
from lychee_server.gateway.metrics import PREFIX
from lychee_server.gateway.service import Service
from lychee_server.gateway.service_answer import ServiceAnswer

OUTCOMES: Final = ("answered", "failed", "timeout", "stopped")
REASONS: Final = ("not_ready", "busy", "running", "memory", "stopping", "error")
_BUCKETS: Final = (-0.5, 0.0, 0.25, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.99, 1.0)

Record = Callable[[Mapping[str, Any]], None]


_logger = logging.getLogger(__name__)


class Shadow:
    """Asks the shadow's model in the background; to be used on one event loop.

    A call is dropped, and counted, rather than kept for later: where the model is not ready or anybody waits for
    either model, where too many run, or where they hold too much. None is sent a second time by the gateway.

    Args:
        settings: What the file says.
        service: Of the shadow's model.
        record: Is given the fields of a record for each call that was sent.
        registry: Where it is counted.
    """

    def __init__(self, settings: ShadowSettings, service: Service, record: Record, registry: CollectorRegistry) -> None:
        self._settings = settings
        self._service = service
        self._record = record
        self._tasks: set[asyncio.Task[None]] = set()
        self._held_bytes = 0
        self._is_stopping = False
        name = f"{PREFIX}_experiment_shadow"
        self._calls = Counter(f"{name}_calls", "Calls sent to the shadow's model", ("outcome",), registry=registry)
        self._dropped = Counter(f"{name}_dropped", "Calls that it was not sent", ("reason",), registry=registry)
        self._tau = Histogram(
            f"{name}_kendall_tau", "Kendall's tau-b of both models' rankings", buckets=_BUCKETS, registry=registry
        )
        for outcome in OUTCOMES:
            self._calls.labels(outcome)
        for reason in REASONS:
            self._dropped.labels(reason)

    def offer(
        self,
        answered_by: Service,
        answer: ServiceAnswer,
        seconds: float,
        query: Input,
        documents: Sequence[Input | InvalidInputError],
        options: RerankOptions,
        *,
        keeps_policy: bool,
    ) -> None:
        """Have the shadow's model rank what another one has ranked; never waits, and never fails.

        Args:
            answered_by: The service of the model that answered; where it is the shadow's own, nothing is done.
            answer: What it answered.
            seconds: How long it took for that.
            query: The query.
            documents: The documents; those that were refused are left out.
            options: The options of the call.
            keeps_policy: Whether the call chose its policy; otherwise the shadow's model decides by its own.
        """
        if answered_by is self._service or answer.everything is None:
            return
        reason = self._find_obstacle(answered_by)
        try:
            if reason is None:
                primary = describe_side(answered_by.name, answer.everything, seconds, None)
                reason = self._begin(primary, query, documents, options, keeps_policy=keeps_policy)
        except Exception:  # whatever it is, the caller has an answer
            _logger.exception("a call could not be sent to the shadow's model")
            reason = "error"
        if reason is not None:
            self._dropped.labels(reason).inc()

    def begin_stopping(self) -> None:
        """Take no calls any more, and end those that run."""
        self._is_stopping = True
        for task in self._tasks:
            task.cancel()

    async def aclose(self) -> None:
        """Take no calls any more, end those that run, and return when they have ended."""
        self.begin_stopping()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _find_obstacle(self, answered_by: Service) -> str | None:
        if self._is_stopping:
            return "stopping"
        if self._service.health.state != "ready":
            return "not_ready"
        limit = self._service.limit
        if limit.waiting or answered_by.limit.waiting or limit.running >= limit.max_running:
            return "busy"
        return "running" if len(self._tasks) >= self._settings.max_running else None

    def _begin(
        self,
        primary: Mapping[str, Any],
        query: Input,
        documents: Sequence[Input | InvalidInputError],
        options: RerankOptions,
        *,
        keeps_policy: bool,
    ) -> str | None:
        """Begin to ask the shadow's model, or return why that is not done."""
        # Nothing of the request: neither its notes nor its trace, which end with its answer, nor its decoded pixels.
        own_query, *own_documents = map(_copy, (query, *documents))
        size = sum(map(_count_bytes, (own_query, *own_documents)))
        if self._held_bytes + size > self._settings.max_mb * MIB:
            return "memory"
        own: RerankOptions = {**options, "priority": "bulk", "server_timings": False, "relevant_spans": None}
        own |= {"top_n": None, "score_threshold": None, "min_results": 0, "timeout_s": self._settings.timeout_s}
        if not keeps_policy:
            own["policy"] = self._service.own.policy
        work = self._ask(primary, own_query, own_documents, own)
        self._held_bytes += size
        task = asyncio.create_task(work, name="gateway-shadow", context=contextvars.Context())
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._end(done, size))
        return None

    def _end(self, task: asyncio.Task[None], size: int) -> None:
        self._tasks.discard(task)
        self._held_bytes -= size
        if task.cancelled():
            self._calls.labels("stopped").inc()

    async def _ask(
        self,
        primary: Mapping[str, Any],
        query: Input,
        documents: Sequence[Input | InvalidInputError],
        options: RerankOptions,
    ) -> None:
        began_at_s = time.monotonic()
        answer, error, outcome = None, None, "answered"
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                answer = await self._service.rerank(query, documents, options)
        except TooBusyError:
            self._dropped.labels("busy").inc()
            return
        except (DeadlineExceededError, TimeoutError) as failed:
            outcome, error = "timeout", type(failed).__name__
        except Exception as failed:
            outcome, error = "failed", type(failed).__name__
            if not isinstance(failed, LycheeError):
                _logger.exception("a call to the shadow's model failed")
        self._calls.labels(outcome).inc()
        ranking = None if answer is None else answer.everything
        other = describe_side(self._service.name, ranking, time.monotonic() - began_at_s, error)
        if (tau := _tau(primary, other)) is not None:
            self._tau.observe(tau)
        self._record({"record": "shadow", "primary": primary, "shadow": other})


def _tau(*sides: Mapping[str, Any]) -> float | None:
    scores = [{each["index"]: each["relevance_score"] for each in side.get("results", ())} for side in sides]
    both = sorted(scores[0].keys() & scores[1].keys())
    return kendall_tau_b(*([each[index] for index in both] for each in scores))


def _count_bytes(value: Input | InvalidInputError) -> int:
    """Return what a query or document holds: its text and the files of its images, not what was decoded of them."""
    if isinstance(value, InvalidInputError):
        return 0
    return sys.getsizeof(text_of(value) or "") + sum(len(image.to_file()) for image in images_of(value))


def _copy(value: Input | InvalidInputError) -> Any:
    """Return the same without the pixels that were prepared of it, or why it cannot be used."""
    if isinstance(value, InvalidInputError) or not images_of(value):
        return value
    try:
        images = tuple(Image.from_bytes(image.to_file()) for image in images_of(value))
    except InvalidInputError as error:
        return error
    text = text_of(value)
    several = images[0] if len(images) == 1 else Images(images)
    return several if text is None else ImageText(several, text)

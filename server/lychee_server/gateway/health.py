"""Whether the gateway can be trusted: every model answers, the golden pairs match, and a pair is scored in time."""

from __future__ import annotations

import asyncio
import logging
import math
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Final, Literal, TypeAlias

import numpy as np
from lychee_client import (
    AsyncLycheeClient,
    DeadlineExceededError,
    GoldenReport,
    Image,
    InferenceError,
    InvalidOutputError,
    LycheeError,
    Manifest,
    ModelNotReadyError,
    ServerOverloadedError,
)

from lychee_server.gateway.health_report import HealthReport
from lychee_server.gateway.model_client import SharedClient
from lychee_server.gateway.model_metrics import ModelMetrics
from lychee_server.gateway.model_watch import SILENCE_S, ModelWatch

State: TypeAlias = Literal["starting", "ready", "degraded", "unavailable", "stopping"]

POLL_S: Final = 1.0  # how soon a lost Triton is noticed where no call notices it first
ANSWER_TIMEOUT_S: Final = 5.0  # for "are you ready?"
READY_TIMEOUT_S: Final = 10.0  # on a busy machine the tokenizer alone takes seconds
LOOK_S: Final = 1.5  # a process that has died is told by Triton after 1 s
GOLDEN_TIMEOUT_S: Final = 300.0
RECHECK_S: Final = 300.0
RECHECK_FAILED_S: Final = 30.0
REPLAY_S: Final = 60.0  # a model that goes on giving no numbers has the golden pairs replayed this often
REUSE_S: Final = 1.0  # a probe's result answers later probes for so long
START_WAIT_S: Final = 5.0  # a call that comes before the first check waits for it
_PROBE_IMAGE_SIZE: Final = (32, 32, 3)

_logger = logging.getLogger("lychee_server.gateway")


class Health:
    """Watches the server in the background, and scores a pair when asked.

    A server counts as ready only after its golden pairs matched, and again only after it was lost, came back, and they
    matched again; also every few minutes. Each of these checks uses a new client, so that it sees the model that is
    served now, and none of them uses a cache. In between every model proves all the time that it answers. While one
    does not, the gateway is "degraded": it still answers the calls that need only others.

    Args:
        connect: Makes a client without a cache.
        url: The URL of Triton, for messages.
        metrics: Are told of every change.
        latency_limit_ms: A scored pair that takes longer makes the status "degraded".
        on_model: Awaited with the manifest before a server counts as ready.
        answered_at: Returns when each model last answered a call, by `time.monotonic`.
        model: The name of the served model among several, for the log; None where there is one.

    Attributes:
        state: "starting" before the first check ended, "degraded" while the golden pairs do not match or a model does
            not answer.
        reason: Why the state is not "ready", for people; None when it is.
        mismatch: What is wrong with the golden pairs, for people; None while they match.
        golden: The last replay of the golden pairs; None before the first.
        golden_checked_at: When that was, in seconds since 1970; None before the first.
        lost_at: When Triton or a model went away, in seconds since 1970; None while the last replay still counts.
        verified: The versions of the exports whose golden pairs were replayed since the server was lost last.
    """

    def __init__(
        self,
        connect: Callable[[], AsyncLycheeClient],
        url: str,
        metrics: ModelMetrics,
        *,
        latency_limit_ms: float,
        on_model: Callable[[Manifest], Awaitable[None]],
        answered_at: Callable[[], Mapping[str, float]],
        model: str | None = None,
    ) -> None:
        self._what = "the gateway" if model is None else f"the model {model}"
        self._about = {"fields": {} if model is None else {"served": model}}
        self.state: State = "starting"
        self.reason: str | None = f"waiting for Triton at {url}"
        self.golden: GoldenReport | None = None
        self.golden_checked_at: float | None = None
        self.lost_at: float | None = None
        self.verified: set[int | None] = set()
        self._connect = connect
        self._lost = f"Triton at {url} does not answer, or not all its models are loaded"
        self._metrics = metrics
        self._latency_limit_ms = latency_limit_ms
        self._on_model = on_model
        self._answered_at = answered_at
        self.mismatch: str | None = None
        self._models: ModelWatch | None = None  # of the model that was verified; None while none is
        self._watch_task: asyncio.Task[None] | None = None
        self._probe_task: asyncio.Task[HealthReport] | None = None
        self._probed: tuple[float, HealthReport] | None = None
        self._clients = SharedClient(connect())
        self._manifest: Manifest | None = None
        self._doubt = asyncio.Event()
        self._distrusted_at_s = -math.inf
        self._checked_once = asyncio.Event()
        self._verifications = asyncio.Condition()

    def start(self) -> None:
        """Begin to watch, on the running event loop."""
        if self._watch_task is None:
            self._watch_task = asyncio.create_task(self._watch(), name="gateway-health")

    def begin_stopping(self) -> None:
        """Be no longer ready; calls that come anyway are still answered."""
        self._enter("stopping", "the gateway is stopping")

    async def aclose(self) -> None:
        """Stop watching."""
        self.begin_stopping()
        for task in (self._watch_task, self._probe_task):
            if task is not None:
                task.cancel()
                with suppress(asyncio.CancelledError, LycheeError):
                    await task
        await self._forget()
        await self._clients.aclose()

    async def require(self, timeout_s: float) -> None:
        """Return if calls make sense; wait a moment if the first check has not ended.

        Raises:
            ModelNotReadyError: The server is away, or has not been checked since it came back.
        """
        if not self._checked_once.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(min(timeout_s, START_WAIT_S)):
                    await self._checked_once.wait()
        if self.state in ("starting", "unavailable"):
            raise ModelNotReadyError(f"the model server is not ready: {self.reason}")

    def suspect(self) -> None:
        """Look at the server now: a call failed in a way that a lost or exchanged server would explain."""
        self._doubt.set()

    def distrust(self) -> None:
        """Replay the golden pairs now, but not all the time: a model gave no number for a document or a query."""
        now_s = time.monotonic()
        if now_s - self._distrusted_at_s >= REPLAY_S:
            self._distrusted_at_s = now_s
            self._doubt.set()

    async def recheck(self) -> None:
        """Replay the golden pairs now, and return when that is done."""
        async with self._verifications:
            self._doubt.set()
            await self._verifications.wait()

    async def check(self) -> HealthReport:
        """Score a real pair. Callers at the same time share one, and a result serves a second."""
        if self.state in ("starting", "unavailable", "stopping"):
            return HealthReport("unavailable", reason=f"{self.state}: {self.reason}")
        if self._probed is not None and time.monotonic() - self._probed[0] < REUSE_S:
            return self._probed[1]
        if self._probe_task is None or self._probe_task.done():
            self._probe_task = asyncio.create_task(self._probe(), name="gateway-probe")
        return await asyncio.shield(self._probe_task)

    async def _probe(self) -> HealthReport:
        report = await self._score_pair()
        self._probed = (time.monotonic(), report)
        return report

    async def _score_pair(self) -> HealthReport:
        manifest, models = self._manifest, self._models
        if manifest is None or models is None:
            return HealthReport("unavailable", reason=self.reason)
        dead = await models.look(LOOK_S, max_age_s=0.0)
        if dead:
            self._suffer(dead)
            return HealthReport("degraded", reason=self.reason)
        timeout_s = max(1.0, 2 * self._latency_limit_ms / 1e3)
        name = uuid.uuid4().hex  # a text or image that no cache has seen
        pixels = np.random.default_rng().integers(0, 256, _PROBE_IMAGE_SIZE, dtype=np.uint8)
        document = f"document {name}" if "rerank_text" in manifest.max_batch_size else Image.from_numpy(pixels)
        began_at_s = time.monotonic()
        try:
            async with self._clients.use() as client:
                await client.score(f"query {name}", document, timeout_s=timeout_s, request_id=f"health-{name}")
        except DeadlineExceededError:
            return HealthReport("degraded", reason=f"a pair was not scored within {timeout_s:g} s")
        except ServerOverloadedError:
            return HealthReport("degraded", reason="Triton's queue is full")
        except InferenceError as error:
            self._suffer({error.model_name or "a model": str(error)})
            return HealthReport("degraded", reason=self.reason)
        except InvalidOutputError as error:
            self.distrust()
            return HealthReport("degraded", reason=f"a pair cannot be scored: {error}")
        except LycheeError as error:
            self.suspect()
            return HealthReport("unavailable", reason=f"a pair cannot be scored: {error}")
        latency_ms = round(1e3 * (time.monotonic() - began_at_s), 1)
        if self.state == "degraded":
            return HealthReport("degraded", latency_ms, self.reason)
        if latency_ms > self._latency_limit_ms:
            reason = f"a pair took {latency_ms:g} ms; the limit is {self._latency_limit_ms:g} ms"
            return HealthReport("degraded", latency_ms, reason)
        return HealthReport("ok", latency_ms)

    async def _watch(self) -> None:
        while True:
            try:
                checked = await self._verify()
            except (DeadlineExceededError, ServerOverloadedError) as error:  # busy, which is not lost
                if self._models is None:
                    await self._lose(str(error))
                checked = False
            except InferenceError as error:
                await self._suffer_or_lose({error.model_name or "a model": str(error)})
                checked = False
            except LycheeError as error:  # also: the server went away meanwhile
                await self._lose(str(error))
                checked = False
            except Exception:
                _logger.exception("the golden pairs could not be checked", extra=self._about)
                await self._lose("the golden pairs could not be checked; the gateway's log says why")
                checked = False
            self._checked_once.set()
            async with self._verifications:
                self._verifications.notify_all()
            await asyncio.sleep(POLL_S)  # also where every call makes us doubt
            if checked:
                await self._wait_for_doubt()

    async def _verify(self) -> bool:
        """Replay the golden pairs with a new client; return False while the server is not ready."""
        self._doubt.clear()
        client = self._connect()
        models: ModelWatch | None = None
        try:
            if not await client.is_ready(ANSWER_TIMEOUT_S):
                await self._lose(self._lost)
                return False
            await client.wait_until_ready(READY_TIMEOUT_S)
            manifest = await client.manifest()
            if manifest != self._manifest:
                await self._forget()
            models = ModelWatch(client, manifest.asked_models, self._answered_at)
            dead = await models.look(SILENCE_S)
            if dead:
                await self._suffer_or_lose(dead)
                return False
            report = await client.check_golden_pairs(GOLDEN_TIMEOUT_S)
            if await client.manifest() != manifest:  # replaced meanwhile
                return False
            self.verified.add(manifest.version)
            await self._on_model(manifest)
            self._manifest = manifest
            await self._forget()
            await self._clients.replace(client)
            self._models = models
        finally:
            if self._models is not models:
                if models is not None:
                    await models.aclose()
                await client.aclose()
        self._judge(report)
        return True

    def _judge(self, report: GoldenReport) -> None:
        self.golden, self.golden_checked_at, self.lost_at = report, time.time(), None
        self._metrics.set_triton_up(True)
        self._metrics.set_golden(report.passed, report.max_abs_error)
        self.mismatch = report.mismatch
        self._enter("degraded" if self.mismatch else "ready", self.mismatch)

    async def _wait_for_doubt(self) -> None:
        """Return when all has to be checked: server or model is lost, a call failed, or time has passed."""
        assert self.golden is not None
        assert self._models is not None
        until_s = time.monotonic() + (RECHECK_S if self.golden.passed else RECHECK_FAILED_S)
        while time.monotonic() < until_s:
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_S):
                    await self._doubt.wait()
                return
            async with self._clients.use() as client:
                ready, dead = await asyncio.gather(client.is_ready(ANSWER_TIMEOUT_S), self._models.look(LOOK_S))
                if await client.manifest() != self._manifest:  # the probes have met another model
                    return
            if not ready:
                await self._lose(self._lost)
                return
            if dead:
                self._suffer(dead)
                return

    async def _forget(self) -> None:
        """Trust no model that was verified any more."""
        models, self._models = self._models, None
        if models is not None:
            await models.aclose()

    def _suffer(self, dead: Mapping[str, str]) -> None:
        """Go on without models that do not answer."""
        self._enter_lost("degraded", _describe(dead))

    async def _suffer_or_lose(self, dead: Mapping[str, str]) -> None:
        """Go on without models that do not answer, if all was verified before they died."""
        if self._models is None:
            await self._lose(_describe(dead))
        else:
            self._suffer(dead)

    async def _lose(self, reason: str) -> None:
        await self._forget()
        self.verified.clear()
        self._enter_lost("starting" if self.golden is None else "unavailable", reason)

    def _enter_lost(self, state: State, reason: str) -> None:
        self.lost_at = self.lost_at or time.time()
        self._metrics.set_triton_up(False)
        self._enter(state, reason)

    def _enter(self, state: State, reason: str | None) -> None:
        if self.state == "stopping":
            return
        if state != self.state:
            level = logging.INFO if state in ("ready", "stopping") else logging.WARNING
            told = f": {reason}" if reason else ""
            _logger.log(level, "%s is %s%s", self._what, state, told, extra=self._about)
        self.state, self.reason = state, reason
        self._metrics.set_ready(state == "ready")
        self._probed = None


def _describe(dead: Mapping[str, str]) -> str:
    return "; ".join(f"{name} does not answer: {reason}" for name, reason in dead.items())

"""What REST and page share: calls to the model, with everything that a shared server has to watch over."""

from __future__ import annotations

import asyncio
import logging
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib import metadata
from typing import Final

from lychee_client import (
    POLICIES,
    UNSET,
    AsyncLycheeClient,
    Calibration,
    ConfigurationError,
    ConnectionFailedError,
    ContractError,
    EmbeddingCache,
    InferenceError,
    InvalidInputError,
    InvalidOutputError,
    LycheeError,
    LycheeWarning,
    Manifest,
    ModelNotReadyError,
    ModelTimings,
    Policy,
    RequestRejectedError,
    RerankOptions,
    RerankResponse,
    ServerStatus,
    Unset,
)
from lychee_client.ranking import check_selection
from lychee_client.transports.base import Transport
from lychee_client.types import Input

from lychee_server.errors import SettingsError
from lychee_server.gateway.call_notes import CallNotes, current_notes
from lychee_server.gateway.health import Health
from lychee_server.gateway.limits import ConcurrencyLimit, TooBusyError
from lychee_server.gateway.metrics import ONLY_MODEL, Metrics
from lychee_server.gateway.model_client import LentTransport, SharedClient
from lychee_server.gateway.own_calibration import OwnCalibration, name_of
from lychee_server.gateway.request_ids import make_request_id
from lychee_server.gateway.response_places import place_response
from lychee_server.gateway.service_answer import ServiceAnswer, Usage
from lychee_server.gateway.settings import GatewaySettings
from lychee_server.gateway.tracing.current import REQUEST_TRACER

DISTRIBUTION: Final = "lychee-rerank-server"
INTERNAL_ROUTE: Final = "internal"  # of calls that are no request of their own, as those of a calibration
# What a call fails with where the server or one of its models is lost, or another one is served than before.
_DOUBTFUL: Final = (ConnectionFailedError, ModelNotReadyError, ContractError, RequestRejectedError, InferenceError)

_logger = logging.getLogger(__name__)


class Service:
    """The model behind the gateway, shared by all routes and the page; to be used on one event loop.

    Args:
        settings: The settings of the gateway, or this model's own.
        name: Of the model: the one of the file of models.
        is_one_of_several: Whether the gateway has other models besides.
        transport: A transport in place of a connection to `settings.triton_url`; stays open when the service is closed.
        cache: Keeps the documents' embeddings, or the scores of pairs; None: nothing does.
        metrics: Of the gateway, are told of every call; None: the service makes its own.

    Attributes:
        settings: The settings that were given.
        name: The name that was given.
        metrics: The metrics that were given, or the service's own.
        counts: The part of the metrics that is about this model.
        cache: The cache that was given.
        health: Whether the model can be trusted.
        limit: Limits how many calls are computed at the same time, and how many wait.
        own: What decides where a call names no policy.

    Raises:
        SettingsError: The URL, the calibration or another setting cannot be used.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        *,
        name: str = ONLY_MODEL,
        is_one_of_several: bool = False,
        transport: Transport | None = None,
        cache: EmbeddingCache | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self.settings = settings
        self.name = name
        self.metrics = metrics or Metrics()
        self.counts = self.metrics.of(name)
        self.cache = cache
        self.limit = ConcurrencyLimit(settings.max_concurrency, settings.max_waiting)
        self.counts.watch_limit(self.limit)
        self._transport = None if transport is None else LentTransport(transport)
        self._running = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._manifest: Manifest | None = None
        try:
            path = settings.calibration
            chosen = settings.policy if path is None else Calibration.load(path)
            self.own = OwnCalibration(settings, chosen, model=name if is_one_of_several else None)
            self._clients = SharedClient(self._connect(cache))
            self.counts.watch_replicas(self._clients)
            self.health = Health(
                lambda: self._connect(None),
                settings.triton_url,
                self.counts,
                latency_limit_ms=settings.health_latency_ms,
                on_model=self._take_model,
                answered_at=self._clients.answered_at,
                model=name if is_one_of_several else None,
            )
        except ConfigurationError as error:
            raise SettingsError(f"the gateway cannot be set up: {error}") from error

    async def start(self) -> None:
        """Begin to watch the server. Never fails because Triton is not there yet."""
        # Every response carries its warnings; shown by Python they would quote callers' instructions on standard error.
        warnings.filterwarnings("ignore", category=LycheeWarning)
        self.health.start()

    def begin_stopping(self) -> None:
        """Be no longer ready, so that no new calls are sent here; those that come are still answered."""
        self.health.begin_stopping()

    async def aclose(self) -> None:
        """Let the calls in flight finish, as long as the settings allow, and close the client."""
        self.begin_stopping()
        with suppress(TimeoutError):
            async with asyncio.timeout(self.settings.drain_timeout_s):
                await self._idle.wait()
        await self.health.aclose()
        await self._clients.aclose()

    async def manifest(self) -> Manifest:
        """Return what the served model is.

        Raises:
            LycheeError: The server does not answer.
        """
        if self._manifest is not None:
            return self._manifest
        async with self._clients.use() as client:
            return await client.manifest()

    @property
    def known_manifest(self) -> Manifest | None:
        """What the served model was when it was checked last; None before the first check."""
        return self._manifest

    def policies(self) -> dict[str, Policy]:
        """Return the policies to choose from by name, the gateway's own calibration among them."""
        own = self.own.policy
        return {**POLICIES, **({self.own.name: own.policy} if isinstance(own, Calibration) else {})}

    @property
    def default_policy(self) -> str:
        """The name of the policy that decides where nobody chooses one."""
        return self.own.name

    async def rerank(
        self,
        query: Input,
        documents: Sequence[Input | InvalidInputError],
        options: RerankOptions,
        *,
        request_id: str | None = None,
        route: str = INTERNAL_ROUTE,
    ) -> ServiceAnswer:
        """Rank documents; see LycheeClient.rerank.

        Args:
            query: The query of the call.
            documents: The documents; one that has been refused already is the error that says why.
            options: The client's options; `timeout_s` includes waiting for a slot and is at most the settings'.
            request_id: The id of the call in the logs; None: the service makes one.
            route: The name under which the metrics count the call.

        Raises:
            TooBusyError: Too many calls run and wait.
            InvalidInputError: The query cannot be used, or there are no documents or too many.
            ModelNotReadyError: The server is away, or has not been checked since it came back.
            LycheeError: See LycheeClient.rerank.
        """
        request_id = request_id or make_request_id()
        notes = CallNotes() if route == INTERNAL_ROUTE else current_notes()
        notes.note_call(query, documents, content=self.settings.log_content)
        self._check_count(len(documents))
        check_selection(options.get("top_n"), options.get("score_threshold"), options.get("min_results", 0))
        self._running += 1
        self._idle.clear()
        try:
            response = await self._rerank(query, documents, options, request_id)
        except LycheeError as error:
            if isinstance(error, TooBusyError):
                self.counts.reject("busy")
            elif isinstance(error, InvalidOutputError):
                self.counts.fail_documents(error, len(documents))
                self.health.distrust()
            elif isinstance(error, _DOUBTFUL):
                self.health.suspect()
            error.request_id = request_id
            raise
        finally:
            self._running -= 1
            if not self._running:
                self._idle.set()
        for failed in response.errors:
            if isinstance(failed.error, InvalidOutputError):
                notes.reason = failed.message
                self.health.distrust()
        notes.errors = len(response.errors)
        notes.model = None if response.model is None else response.model.model_id
        notes.version = None if response.model_version is None else str(response.model_version)
        everything = replace(response, results=(*response.results, *response.unselected), unselected=())
        self.counts.observe_rerank(route, everything, self._policy_name(options), documents=len(documents))
        usage = Usage.of(query, documents, everything)
        return ServiceAnswer(replace(response, unselected=()), request_id, usage, everything)

    async def server_status(self) -> ServerStatus:
        """Return what Triton says about itself and its models."""
        async with self._clients.use() as client:
            return await client.server_status()

    async def model_timings(self) -> Mapping[str, ModelTimings]:
        """Return what Triton counted for each model since it loaded it; models without requests are left out.

        Raises:
            LycheeError: The server does not answer.
        """
        async with self._clients.use() as client:
            return await client.model_timings(self.settings.timeout_s)

    def _connect(self, cache: EmbeddingCache | None) -> AsyncLycheeClient:
        settings = self.settings
        return AsyncLycheeClient(
            settings.triton_url,
            timeout_s=settings.timeout_s,
            max_img_size=settings.max_img_size,
            transport=self._transport,
            embedding_cache=cache,
            tracer=REQUEST_TRACER,
            model=None,  # whatever that Triton serves: LYCHEE_MODEL is for those who call the gateway
        )

    async def _take_model(self, manifest: Manifest) -> None:
        """Serve this model from now on: the calls' client must not preprocess for another one."""
        if self._manifest is not None and manifest != self._manifest:
            await self._clients.replace(self._connect(self.cache))
        async with self._clients.use() as client:
            self._tell_of(await client.manifest())

    def _tell_of(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self.counts.set_model(metadata.version(DISTRIBUTION), manifest.model_id, manifest.revision)

    async def _follow(self, client: AsyncLycheeClient, version: int | None, deadline_s: float) -> None:
        """See that the golden pairs of the model that has answered a call were replayed, and tell of it from now on.

        Raises:
            ModelNotReadyError: They were not within the time of the call.
        """
        if self._manifest is None or version == self._manifest.version:
            return
        while version not in self.health.verified:
            try:
                async with asyncio.timeout(deadline_s - time.monotonic()):
                    await self.health.recheck()
            except TimeoutError as error:
                raise ModelNotReadyError(
                    f"Triton has another model now, version {version}, and its golden pairs were not replayed within "
                    "the time of the call; try again"
                ) from error
        manifest = await client.manifest()
        if manifest.version == version:
            self._tell_of(manifest)

    def _check_count(self, count: int) -> None:
        if not count:
            raise InvalidInputError("documents is empty; expected at least one document")
        if count > self.settings.max_documents:
            raise InvalidInputError(
                f"there are {count} documents; the limit is {self.settings.max_documents} (--max-documents): send them "
                "in several requests"
            )

    async def _rerank(
        self,
        query: Input,
        documents: Sequence[Input | InvalidInputError],
        options: RerankOptions,
        request_id: str,
    ) -> RerankResponse:
        """Return all results, selected or not, and all errors by the caller's indexes."""
        timeout_s = self._timeout_s(options)
        deadline_s = time.monotonic() + timeout_s
        accepted = [index for index, document in enumerate(documents) if not isinstance(document, InvalidInputError)]
        own: RerankOptions = {"policy": self.own.policy, **options, "request_id": request_id}
        own["keep_unselected"] = True  # so that all are counted
        async with self.limit.slot(timeout_s, bulk=options.get("priority") == "bulk"):
            self.counts.note_queue()
            await self.health.require(deadline_s - time.monotonic())
            own["timeout_s"] = max(1e-3, deadline_s - time.monotonic())
            async with self._clients.use() as client:
                response = await client.rerank(query, [documents[index] for index in accepted], **own)  # type: ignore[misc]
                if response.model is not None:
                    await self._follow(client, response.model_version, deadline_s)
        doubts = () if self.health.mismatch is None else (self.health.mismatch,)
        return place_response(response, documents, doubts)

    def _timeout_s(self, options: RerankOptions) -> float:
        timeout_s = options.get("timeout_s", UNSET)
        if isinstance(timeout_s, Unset) or timeout_s is None:
            return self.settings.timeout_s
        return min(timeout_s, self.settings.timeout_s)

    def _policy_name(self, options: RerankOptions) -> str:
        return name_of(options.get("policy") or self.own.policy)

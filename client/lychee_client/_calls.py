"""The calls of a client as coroutines: everything that the synchronous and the asynchronous client have in common."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any, Final, cast

import msgspec

from lychee_client import golden
from lychee_client._assets import CLIENT_ASSETS, fetch_assets
from lychee_client._config import UNSET, ClientConfig, Unset, cache_dir
from lychee_client._embedding_cache import EmbeddingCache
from lychee_client._errors import (
    ConfigurationError,
    ConnectionFailedError,
    InvalidInputError,
    InvalidOutputError,
    LycheeWarning,
    ServerError,
)
from lychee_client._execution import fetch_executions
from lychee_client._long_texts import LongTexts, TextLimits
from lychee_client._model import Model, load_model
from lychee_client._operations import Sleep, ask, in_thread
from lychee_client._options import RerankOptions, ScoreOptions, check_options
from lychee_client._pipelines.lanes import LANES
from lychee_client._pipelines.scoring import check_input, find_image_texts
from lychee_client._span_search import SpanSearch
from lychee_client.calibration import Calibration
from lychee_client.instructions.templates import text_problem
from lychee_client.manifest.manifest import Manifest
from lychee_client.model_timings import model_timings
from lychee_client.ranking import check_selection, rank, select
from lychee_client.spans import check_spans
from lychee_client.thresholds import get_policy
from lychee_client.transports.base import ControlRequest
from lychee_client.transports.shared_memory import SharedMemoryPool
from lychee_client.triton_key import KEY_VARIABLE
from lychee_client.types import Input, ModelStatus, ModelTimings, RerankResponse, ServerStatus, Timings

POLL_INTERVAL_S: Final = 0.1
MAX_WARNINGS: Final = 100


class Calls:
    """Makes the calls of one client, and keeps what they learn about the server.

    Args:
        config: The settings of the client.
        shared_memory: The memory for larger tensors, made known to the server when the model is loaded; None sends
            every tensor itself.
        embedding_cache: Keeps embeddings, or scores of pairs, between calls; None keeps nothing.
        answered_at: When each model last answered, by `time.monotonic`.

    Attributes:
        closed: True once the client is closed.
    """

    def __init__(
        self,
        config: ClientConfig,
        shared_memory: SharedMemoryPool | None = None,
        embedding_cache: EmbeddingCache | None = None,
        answered_at: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        self.config = config
        self._shared_memory = shared_memory
        self._embedding_cache = embedding_cache
        self._answered_at = answered_at
        self.closed = False
        self._loaded: Model | None = None
        self._warned: set[str] = set()

    def timeout_s(self, options: ScoreOptions) -> float | None:
        """Return the seconds that a call may take."""
        timeout_s = options.get("timeout_s", UNSET)
        return self.config.timeout_s if isinstance(timeout_s, Unset) else timeout_s

    async def load(self) -> Model:
        """Return what the client knows about the server's model; fetch it the first time."""
        if self._loaded is None:
            assets = await fetch_assets(cache_dir())
            # In a thread: reading a tokenizer of 150,000 tokens takes a second.
            executions = await fetch_executions(assets.manifest.max_batch_size)
            job = partial(
                load_model,
                msgspec.structs.replace(assets.manifest, execution=executions),
                assets.tokenizer_json,
                self.config.max_img_size,
                self._embedding_cache,
            )
            model = await in_thread(job)
            if self._shared_memory is not None:
                await self._share(self._shared_memory)
            self._loaded = model
        return self._loaded

    async def _share(self, pool: SharedMemoryPool) -> None:
        if not pool.begin_registration():  # another call does it
            return
        try:
            await ask(pool.registration)
            pool.active = True
        except ServerError as error:
            raise ConfigurationError(
                f"{self.config.url} cannot use this machine's shared memory: {error}; expected a server on this host "
                "that may read /dev/shm, started by this user's `lychee load` or with its key in "
                f"{KEY_VARIABLE}. Leave shared_memory out"
            ) from error
        finally:
            pool.end_registration()

    async def rerank(self, query: Input, documents: Sequence[Input], options: RerankOptions) -> RerankResponse:
        """See LycheeClient.rerank."""
        check_options("rerank", options)
        top_n, score_threshold = options.get("top_n"), options.get("score_threshold")
        min_results = options.get("min_results", 0)
        check_selection(top_n, score_threshold, min_results)
        limits = TextLimits.make(options)
        spans = check_spans(options.get("relevant_spans"))
        priority = options.get("priority", "interactive")
        if priority not in LANES:
            raise ConfigurationError(f"priority is {priority!r}; expected one of {', '.join(LANES)}")
        instruction = options.get("instruction")
        problem = None if instruction is None else text_problem(instruction)
        if problem is not None:
            raise ConfigurationError(f"the instruction {instruction!r} {problem}")
        policy = options.get("policy") or self.config.policy
        thresholds = policy.policy if isinstance(policy, Calibration) else get_policy(policy)
        _check_inputs(query, documents)
        documents = list(documents)
        if not documents:
            return RerankResponse((), (), Timings())

        model = await self.load()
        manifest = model.manifest
        warned = [] if model.warning is None else [model.warning]
        if manifest.instruction is None and instruction is not None:
            warned.append(f"{manifest.model_id} reads no instruction; the one given is ignored")
            instruction = None
        elif manifest.instruction is not None and instruction is None:
            instruction = manifest.instruction.default
        if isinstance(policy, Calibration):
            mismatches = policy.mismatches(manifest.identity, instruction)
            if mismatches:
                warned.append(f"the calibration may not fit: {'; '.join(mismatches)}; run `lychee calibrate` again")
        warned += find_image_texts(query, documents)

        statistics = ControlRequest("statistics")
        server_timings = options.get("server_timings", False)
        before = (await ask(statistics)) if server_timings else {}
        texts = LongTexts(model.pipeline, limits.beside(manifest.text.max_tokens))
        outcome = await texts.rerank(query, documents, instruction, LANES[priority])
        if not outcome.scores:
            for error in outcome.errors.values():
                if isinstance(error, InvalidOutputError):
                    error.index = None
                    raise error  # rather the model's fault than all the documents': an empty ranking would hide it
        keep_unselected = options.get("keep_unselected", False)
        ranking, errors = rank(
            outcome,
            thresholds,
            top_n=None if keep_unselected else top_n,
            score_threshold=None if keep_unselected else score_threshold,
            min_results=min_results,
            documents=documents if options.get("return_documents", False) else None,
        )
        results = select(ranking, top_n=top_n, score_threshold=score_threshold, min_results=min_results)
        unselected = ranking[len(results) :]
        if spans is not None:
            search = SpanSearch(model.pipeline, texts.read_query(query), instruction, LANES[priority], outcome)
            results, doubts = await search.add_spans(results, texts.read_documents(results, documents), spans)
            warned += doubts
        if server_timings:
            after = await ask(statistics)
            counted = model_timings(before, after, manifest.max_batch_size)
            outcome.timings = replace(outcome.timings, server=counted)
        if outcome.query is not None and outcome.query.truncated:
            warned.append(
                f"the query is longer than the {outcome.query.tokens} tokens that {manifest.model_id} reads; its end "
                "does not count: shorten it"
            )
        elif outcome.query is not None and texts.cut_query is not None:
            outcome.query = replace(outcome.query, truncated=True)
            warned.append(
                f"the query is longer than the {limits.max_tokens_per_query} tokens of max_tokens_per_query; its end "
                "does not count: shorten it"
            )
        self._warn(warned)
        return RerankResponse(
            results,
            errors,
            outcome.timings,
            manifest.identity,
            instruction,
            tuple(warned),
            outcome.embedding_cache,
            outcome.query,
            outcome.tokens_read,
            unselected,
        )

    async def score(self, query: Input, document: Input, options: ScoreOptions) -> float:
        """See LycheeClient.score."""
        check_options("score", options, ScoreOptions)
        response = await self.rerank(query, [document], cast(RerankOptions, options))
        for failed in response.errors:
            raise failed.error
        return response.results[0].relevance_score

    async def manifest(self) -> Manifest:
        """See LycheeClient.manifest."""
        return (await self.load()).manifest

    async def check_golden_pairs(self) -> golden.GoldenReport:
        """See LycheeClient.check_golden_pairs."""
        model = await self.load()
        began_at_s = time.monotonic()
        instruction = None if model.manifest.instruction is None else model.manifest.instruction.default
        scores = []
        for query, document in golden.golden_inputs(model.manifest):
            try:
                outcome = await model.reference_pipeline.rerank(query, [document], instruction)
                for error in outcome.errors.values():
                    raise error
                scores.append(outcome.scores[0].relevance_score)
            except InvalidOutputError:
                scores.append(math.nan)
        for name in model.manifest.asked_models:
            if self._answered_at.get(name, 0.0) < began_at_s:  # no pair needs it
                await model.reference_pipeline.probe(name)
        return golden.golden_report(model.manifest, scores)

    async def probe(self, model_name: str) -> None:
        """See LycheeClient.probe."""
        await (await self.load()).reference_pipeline.probe(model_name)

    async def wait_until_ready(self) -> None:
        """See LycheeClient.wait_until_ready."""
        await self._wait_for_model(CLIENT_ASSETS)
        manifest = (await self.load()).manifest
        for model_name in manifest.max_batch_size:
            await self._wait_for_model(model_name)

    async def _wait_for_model(self, model_name: str) -> None:
        while not await self._is_ready(ControlRequest("model_ready", model_name)):
            await Sleep(POLL_INTERVAL_S, f"{model_name} on {self.config.url} to be ready")

    async def _is_ready(self, request: ControlRequest) -> bool:
        try:
            return bool((await ask(request))["ready"])
        except (ConnectionFailedError, ServerError):
            if self.closed:
                raise
            return False

    async def is_ready(self) -> bool:
        """See LycheeClient.is_ready."""
        return await self._is_ready(ControlRequest("ready"))

    async def model_timings(self) -> Mapping[str, ModelTimings]:
        """See LycheeClient.model_timings."""
        answer = await ask(ControlRequest("statistics"))
        return model_timings({}, answer, [model["name"] for model in answer.get("model_stats", [])])

    async def server_status(self) -> ServerStatus:
        """See LycheeClient.server_status."""
        if not await self._is_ready(ControlRequest("live")):
            return ServerStatus(live=False)
        ready = await self._is_ready(ControlRequest("ready"))
        metadata = await ask(ControlRequest("metadata"))
        index = await self._list_models()
        models = tuple(
            ModelStatus(
                name=model["name"],
                version=str(model.get("version", "")),
                ready=model.get("state") == "READY",
                reason=model.get("reason", ""),
            )
            for model in index.get("models", [])
        )
        return ServerStatus(live=True, ready=ready, version=metadata.get("version"), models=models)

    async def _list_models(self) -> dict[str, Any]:
        try:
            return await ask(ControlRequest("index"))
        except ServerError:  # kept to those with the key; the models that are ready are no secret
            counted = (await ask(ControlRequest("statistics"))).get("model_stats", [])
            return {"models": [{**model, "state": "READY"} for model in counted]}

    def _warn(self, messages: Sequence[str]) -> None:
        """Warn about each thing once, and after many different ones not at all: every response has its own."""
        for message in messages:
            if message not in self._warned and len(self._warned) < MAX_WARNINGS:
                self._warned.add(message)
                warnings.warn(message, LycheeWarning, stacklevel=2)


def _check_inputs(query: object, documents: object) -> None:
    try:
        check_input(query)
    except InvalidInputError as error:
        raise InvalidInputError(f"query: {error}") from error
    if isinstance(documents, (str, bytes)):
        raise InvalidInputError(f"documents is one {type(documents).__name__}, expected a list of documents")

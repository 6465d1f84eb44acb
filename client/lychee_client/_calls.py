"""The calls of a client as coroutines: everything that the synchronous and the asynchronous client have in common."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Final, cast

from lychee_client import golden
from lychee_client._config import UNSET, ClientConfig, Unset
from lychee_client._current_model import MOST_MODELS, CurrentModel
from lychee_client._embedding_cache import EmbeddingCache
from lychee_client._errors import (
    ConfigurationError,
    InvalidInputError,
    InvalidOutputError,
    LycheeWarning,
)
from lychee_client._gateway.body import REFUSED
from lychee_client._gateway.discovery import Discovery
from lychee_client._gateway.gateway import Gateway
from lychee_client._long_texts import LongTexts, TextLimits
from lychee_client._model import Model
from lychee_client._operations import RANK, Note, Stage, ask
from lychee_client._options import RerankOptions, ScoreOptions, check_options
from lychee_client._pipelines.lanes import LANES
from lychee_client._pipelines.scoring import check_input, find_image_texts
from lychee_client._settlement import settle
from lychee_client._span_search import SpanSearch
from lychee_client.calibration import Calibration, thresholds_of
from lychee_client.experiments.events import FeedbackEvent
from lychee_client.instructions.templates import text_problem
from lychee_client.manifest.manifest import Manifest
from lychee_client.model_timings import model_timings
from lychee_client.ranking import check_selection, describe_ranking, rank, select
from lychee_client.served_models import ServedModel, describe_manifest
from lychee_client.spans import check_spans
from lychee_client.thresholds import Policy
from lychee_client.transports.base import ControlRequest
from lychee_client.transports.shared_memory import SharedMemoryPool
from lychee_client.types import Input, ModelTimings, RerankResponse, Timings

MAX_WARNINGS: Final = 100


class Calls:
    """Makes the calls of one client, and keeps what they learn about the server.

    Args:
        config: The settings of the client.
        shared_memory: The memory for larger tensors, made known to the server when the model is loaded; None sends
            every tensor itself.
        embedding_cache: Keeps embeddings, or scores of pairs, between calls; None keeps nothing.
        answered_at: When each model last answered, by `time.monotonic`.
        discovery: Knows what is at the URL; None takes a Triton server for granted.

    Attributes:
        config: The settings of the client.
        discovery: Knows what is at the URL.
        closed: True once the client is closed.
    """

    def __init__(
        self,
        config: ClientConfig,
        shared_memory: SharedMemoryPool | None = None,
        embedding_cache: EmbeddingCache | None = None,
        answered_at: Mapping[str, float] = MappingProxyType({}),
        discovery: Discovery | None = None,
    ) -> None:
        self.config = config
        self._current = CurrentModel(config, shared_memory, embedding_cache)
        self._answered_at = answered_at
        self.discovery = discovery or Discovery(config, (), may_be_gateway=False)
        self.closed = False
        self._warned: set[str] = set()

    def timeout_s(self, options: ScoreOptions) -> float | None:
        """Return the seconds that a call may take."""
        timeout_s = options.get("timeout_s", UNSET)
        return self.config.timeout_s if isinstance(timeout_s, Unset) else timeout_s

    async def load(self, caller: str = "rerank()") -> Model:
        """Return what the client knows about the server's model; fetch it the first time.

        Args:
            caller: Who needs it, for the message.

        Raises:
            ConfigurationError: A gateway is at the URL.
            LycheeError: The server cannot serve the request.
        """
        if not self._current.is_known and await self.discovery.find() is not None:
            self.discovery.refuse(caller)
        return await self._current.load()

    async def load_newest(self) -> Model:
        """Return the same, fetched again if the server has another model by now."""
        model = await self.load()
        return (await self._current.load()) if await self._current.renew(model) else model

    async def rerank(self, query: Input, documents: Sequence[Input], options: RerankOptions) -> RerankResponse:
        """See LycheeClient.rerank."""
        began_at_s = time.monotonic()
        check_options("rerank", options)
        check_selection(options.get("top_n"), options.get("score_threshold"), options.get("min_results", 0))
        TextLimits.make(options)
        check_spans(options.get("relevant_spans"))
        priority = options.get("priority", "interactive")
        if priority not in LANES:
            raise ConfigurationError(f"priority is {priority!r}; expected one of {', '.join(LANES)}")
        instruction = options.get("instruction")
        problem = None if instruction is None else text_problem(instruction)
        if problem is not None:
            raise ConfigurationError(f"the instruction {instruction!r} {problem}")
        policy = options.get("policy") or self.config.policy
        thresholds_of(policy)
        _check_inputs(query, documents)
        documents = list(documents)
        if not documents:
            return RerankResponse((), (), Timings())

        await Note({"lychee.documents": len(documents)})
        gateway = await self.discovery.find()
        if gateway is not None:
            response = await self._rerank_at(gateway, query, documents, options, policy, began_at_s)
        else:
            response = await self._current.use(partial(self._rerank, query, documents, options, policy))
        self._warn(response.warnings)
        return response

    async def _rerank_at(
        self,
        gateway: Gateway,
        query: Input,
        documents: Sequence[Input],
        options: RerankOptions,
        policy: str | Policy | Calibration,
        began_at_s: float,
    ) -> RerankResponse:
        for name in REFUSED:
            if options.get(name):
                self.discovery.refuse(name)

        async def settle_here() -> tuple[str | None, list[str]]:
            model = await gateway.model()
            default = model.default_instruction if model.reads_instruction else None
            return settle(options.get("instruction"), default, policy, model.identity)

        instruction, warned = await settle_here()
        timeout_s = self.timeout_s(options)
        ends_at_s = None if timeout_s is None else began_at_s + timeout_s
        for _ in range(MOST_MODELS):
            response = await gateway.rerank(query, documents, options, thresholds_of(policy), instruction, ends_at_s)
            asked = instruction
            instruction, warned = await settle_here()  # of the model that answered
            if instruction == asked:
                break
        return replace(
            response,
            timings=replace(response.timings, total_ms=1e3 * (time.monotonic() - began_at_s)),
            instruction=instruction,
            warnings=tuple(dict.fromkeys((*warned, *response.warnings))),  # both sides look at the instruction
        )

    async def _rerank(
        self,
        query: Input,
        documents: Sequence[Input],
        options: RerankOptions,
        policy: str | Policy | Calibration,
        model: Model,
    ) -> RerankResponse:
        manifest = model.manifest
        await Note({"lychee.model.id": manifest.model_id, "lychee.model.version": manifest.model_version})
        default = None if manifest.instruction is None else manifest.instruction.default
        instruction, settled = settle(options.get("instruction"), default, policy, manifest.identity)
        warned = [*([] if model.warning is None else [model.warning]), *settled, *find_image_texts(query, documents)]
        if options.get("user"):
            warned.append("user is ignored: only a gateway runs experiments, and this is Triton's own address")

        statistics = ControlRequest("statistics")
        server_timings = options.get("server_timings", False)
        before = (await ask(statistics)) if server_timings else {}
        limits, lane = TextLimits.make(options), LANES[options.get("priority", "interactive")]
        texts = LongTexts(model.pipeline, limits.beside(manifest.text.max_tokens))
        outcome = await texts.rerank(query, documents, instruction, lane)
        if not outcome.scores:
            for error in outcome.errors.values():
                if isinstance(error, InvalidOutputError):
                    error.index = None
                    raise error  # rather the model's fault than all the documents': an empty ranking would hide it
        with await Stage(RANK) as stage:
            ranking, errors = rank(
                outcome, thresholds_of(policy), documents=documents if options.get("return_documents", False) else None
            )
            results = select(
                ranking,
                top_n=options.get("top_n"),
                score_threshold=options.get("score_threshold"),
                min_results=options.get("min_results", 0),
            )
            if stage.is_sampled:
                stage.add(describe_ranking(results, errors))
        unselected = ranking[len(results) :] if options.get("keep_unselected", False) else ()
        spans = check_spans(options.get("relevant_spans"))
        if spans is not None:
            search = SpanSearch(model.pipeline, texts.read_query(query), instruction, lane, outcome)
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
            model_version=manifest.version,
        )

    async def score(self, query: Input, document: Input, options: ScoreOptions) -> float:
        """See LycheeClient.score."""
        check_options("score", options, ScoreOptions)
        response = await self.rerank(query, [document], cast(RerankOptions, options))
        for failed in response.errors:
            raise failed.error
        return response.results[0].relevance_score

    async def feedback(self, ranking_id: str, events: Sequence[FeedbackEvent]) -> None:
        """See LycheeClient.feedback."""
        gateway = await self.discovery.find()
        if gateway is None:
            raise ConfigurationError(
                f"feedback() needs a gateway (http://HOST:7860), which runs the experiment, and {self.config.url} is "
                "Triton's address"
            )
        await gateway.feedback(ranking_id, list(events))

    async def manifest(self) -> Manifest:
        """See LycheeClient.manifest."""
        return (await self.load("manifest()")).manifest

    async def models(self) -> tuple[ServedModel, ...]:
        """See LycheeClient.models."""
        gateway = await self.discovery.find()
        return (describe_manifest((await self.load()).manifest),) if gateway is None else await gateway.models()

    async def check_golden_pairs(self) -> golden.GoldenReport:
        """See LycheeClient.check_golden_pairs."""
        await self.load("check_golden_pairs()")
        return await self._current.use(self._check_golden_pairs)

    async def _check_golden_pairs(self, model: Model) -> golden.GoldenReport:
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
        await self.load("probe()")
        await self._current.use(lambda model: model.reference_pipeline.probe(model_name))

    async def model_timings(self) -> Mapping[str, ModelTimings]:
        """See LycheeClient.model_timings."""
        if await self.discovery.find() is not None:
            self.discovery.refuse("model_timings()")
        answer = await ask(ControlRequest("statistics"))
        return model_timings({}, answer, [model["name"] for model in answer.get("model_stats", [])])

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

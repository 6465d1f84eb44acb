"""Scores of the pairs of a table, from a server: grouped by query, many calls under way, patient with the server."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Sequence
from typing import Final

from lychee_client import (
    AsyncLycheeClient,
    ConfigurationError,
    DeadlineExceededError,
    InferenceError,
    InvalidInputError,
    InvalidOutputError,
    LycheeError,
    ModelNotReadyError,
    RequestRejectedError,
)
from lychee_client.types import Input, RerankResponse

from lychee_bulk.errors import ModelChangedError, RowError, ServerLostError
from lychee_bulk.images import ImageReader
from lychee_bulk.options import ScoringOptions, ServedModel
from lychee_bulk.results import Results
from lychee_bulk.rows import Pair

PROBE: Final = "a probe"
FIRST_PAUSE_S: Final = 0.25
LONGEST_PAUSE_S: Final = 5.0
DOUBTS: Final = 3
"""So many times a server is asked for a pair on which it failed, before it is asked whether it is well."""
_OF_A_PAIR: Final = (RequestRejectedError, InferenceError, InvalidOutputError)


async def find_model(client: AsyncLycheeClient, options: ScoringOptions) -> ServedModel:
    """Wait for a server, and return its model.

    Raises:
        ServerLostError: It did not answer in time.
        LycheeError: It cannot be used.
    """
    loop = asyncio.get_running_loop()
    ends_at = loop.time() + options.patience_s
    while True:
        try:
            return await _ask(client, options)
        except LycheeError as error:
            if not _may_pass(error):
                raise
            if loop.time() > ends_at:
                raise ServerLostError(f"no server for {options.patience_s:g} s: {error}") from error
        await asyncio.sleep(1.0)


async def _ask(client: AsyncLycheeClient, options: ScoringOptions) -> ServedModel:
    try:
        response = await client.rerank(PROBE, [PROBE], instruction=options.instruction, policy=options.policy)
    except (InvalidInputError, RequestRejectedError):  # a model of images alone
        response = None
    if response is not None and response.model is not None:
        return ServedModel(response.model, response.model_version, response.instruction, response.warnings)
    manifest = await client.manifest()
    default = None if manifest.instruction is None else manifest.instruction.default
    return ServedModel(manifest.identity, manifest.version, options.instruction or default)


class BatchScorer:
    """Scores the pairs of tables; to be used on one event loop, for several tables at a time.

    Args:
        client: The client that asks the server.
        images: Reads the images of rows.
        options: What to ask.
        model: The model of the run.
    """

    def __init__(
        self, client: AsyncLycheeClient, images: ImageReader, options: ScoringOptions, model: ServedModel
    ) -> None:
        self._client = client
        self._images = images
        self._options = options
        self._model = model
        self._room = asyncio.Semaphore(options.in_flight)

    async def score(self, pairs: Sequence[Pair]) -> Results:
        """Score pairs.

        Raises:
            ModelChangedError: The server has another model than the run.
            ServerLostError: The server was away, or failed, for too long.
        """
        results = Results()
        async with asyncio.TaskGroup() as tasks:
            for group in _group(pairs, self._options.documents_per_call):
                await self._room.acquire()  # so that images are read when there is room for them
                tasks.create_task(self._score_group(group, results)).add_done_callback(lambda _: self._room.release())
        return results

    async def _score_group(self, pairs: Sequence[Pair], results: Results) -> None:
        """Score pairs of one query and instruction."""
        try:
            query = await pairs[0].query.read(self._images)
        except RowError as error:
            _fail(pairs, error, results)
            return
        readings = [pair.document.read(self._images) for pair in pairs]
        read = await asyncio.gather(*readings, return_exceptions=True)
        usable: list[tuple[Pair, Input]] = []
        for pair, document in zip(pairs, read, strict=True):
            if isinstance(document, RowError):
                results.errors[pair.row, pair.index] = document
            elif isinstance(document, BaseException):
                raise document
            else:
                usable.append((pair, document))
        if usable:
            await self._ask(query, usable, results)

    async def _ask(self, query: Input, documents: Sequence[tuple[Pair, Input]], results: Results) -> None:
        """Score documents together; where the server fails on them, each alone."""
        pairs = [pair for pair, _ in documents]
        try:
            response = await self._call(query, documents)
        except InvalidInputError as error:
            _fail(pairs, RowError("invalid_input", f"the query cannot be used: {error}"), results)
        except RowError as error:
            _fail(pairs, error, results)
        except _OF_A_PAIR:
            for one in documents:
                await self._ask(query, [one], results)
        else:
            results.warnings.update(dict.fromkeys(response.warnings))
            for result in response.results:
                results.scored[pairs[result.index].row, pairs[result.index].index] = result
            for failed in response.errors:
                pair = pairs[failed.index]
                results.errors[pair.row, pair.index] = RowError(_kind(failed.error), failed.message)

    async def _call(self, query: Input, documents: Sequence[tuple[Pair, Input]]) -> RerankResponse:
        """Return the server's answer, however long the server is away.

        Raises:
            RowError: The server fails on this one pair, and is well.
            LycheeError: It cannot score these pairs together, or the query cannot be used.
            ModelChangedError: It has another model.
            ServerLostError: It was away for too long.
        """
        loop = asyncio.get_running_loop()
        began, pause_s, doubts = loop.time(), FIRST_PAUSE_S, 0
        options = self._options
        while True:
            try:
                response = await self._client.rerank(
                    query,
                    [document for _, document in documents],
                    instruction=documents[0][0].instruction or options.instruction,
                    priority=options.priority,
                    timeout_s=options.timeout_s,
                )
            except LycheeError as error:
                if isinstance(error, _OF_A_PAIR):
                    if len(documents) > 1:
                        raise
                    doubts += 1
                    if doubts >= DOUBTS and await self._is_well():
                        raise RowError(_kind(error), str(error)) from error
                elif not _may_pass(error):
                    raise
                if loop.time() - began > options.patience_s:
                    raise ServerLostError(
                        f"the server failed for {options.patience_s:g} s, the last time so: {error}. "
                        "Run the command again when it is well: what is scored stays"
                    ) from error
            else:
                self._check_model(response)
                return response
            await asyncio.sleep(random.uniform(0.5, 1.0) * pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _is_well(self) -> bool:
        """Say whether the server scores its golden pairs right: then what it fails on is a row's own fault."""
        try:
            return (await self._client.check_golden_pairs()).passed
        except ConfigurationError:  # a gateway, whose readiness depends on them
            return await self._client.is_ready()
        except LycheeError:
            return False

    def _check_model(self, response: RerankResponse) -> None:
        known = self._model
        if response.model in (None, known.identity) and response.model_version in (None, known.version):
            return
        assert response.model is not None
        raise ModelChangedError(
            f"the server has {response.model.model_id} {response.model.precision_text}, version "
            f"{response.model_version}, and this run's scores are of {known.identity.model_id} "
            f"{known.identity.precision_text}, version {known.version}; load that one again and repeat the command, "
            "or score all anew with --overwrite"
        )


def _group(pairs: Sequence[Pair], size: int) -> Iterator[Sequence[Pair]]:
    """Yield the pairs of each query and instruction, at most so many together: a dual encoder encodes a query once."""
    groups: dict[object, list[Pair]] = {}
    for pair in pairs:
        groups.setdefault((pair.query.key, pair.instruction), []).append(pair)
    for group in groups.values():
        for start in range(0, len(group), size):
            yield group[start : start + size]


def _fail(pairs: Sequence[Pair], error: RowError, results: Results) -> None:
    results.errors.update({(pair.row, pair.index): error for pair in pairs})


def _may_pass(error: LycheeError) -> bool:
    return error.retryable or isinstance(error, (DeadlineExceededError, ModelNotReadyError))


def _kind(error: LycheeError) -> str:
    if isinstance(error, InvalidOutputError):
        return "no_number"
    if isinstance(error, RequestRejectedError):
        return "rejected"
    return "invalid_input" if isinstance(error, InvalidInputError) else "failed"

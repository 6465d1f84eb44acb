"""Requests with one row per item: sent in batches, and answered row by row if a batch fails.

A failure of the server ends the call. A refusal is an item's own only where the model took another item of the call.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Generic, TypeVar

from lychee_client._errors import ContractError, InferenceError, LycheeError, RequestRejectedError
from lychee_client._operations import Handle, Send, Wait
from lychee_client._pipelines.lanes import Lane
from lychee_client._pipelines.pace import Pace
from lychee_client.manifest.manifest import Manifest
from lychee_client.transports.base import InferRequest, InferResponse, Tensor

# What one item, or too large a batch, can cause for all of its batch; every other error ends the call at once.
BATCH_ERRORS: Final = (RequestRejectedError, InferenceError)

# One batch is computed while the next one waits. Batches of one call differ in length, and Triton 2.51 keeps a core
# busy while a request of a third shape waits in a model's queue: with four batches waiting, 100 texts reached 0.79 of
# the documents/s of a bare session, with two 0.96 (CLIP ViT-B/32, 2 cores).
MAX_UNANSWERED: Final = 2

K = TypeVar("K")


class Batches(Generic[K]):
    """The requests of one call for items of one sort, each a row.

    Args:
        manifest: The manifest of the model.
        lane: How much of the server the call may take.
        make_tensors: Makes the tensors of a request for the given items.
        use: Called with the model's name, an answer, and the items that its rows belong to.
        fail: Called with an item, and the refusal that its row causes.
    """

    def __init__(
        self,
        manifest: Manifest,
        lane: Lane,
        make_tensors: Callable[[Sequence[K]], Mapping[str, Tensor]],
        use: Callable[[str, InferResponse, Sequence[K]], None],
        fail: Callable[[K, LycheeError], None],
    ) -> None:
        self._max_batch_size = manifest.max_batch_size
        self._model_version = manifest.model_version
        self._lane = lane
        self._pace = Pace()
        self._make_tensors = make_tensors
        self._use = use
        self._fail = fail
        self._sent: deque[tuple[Handle[InferResponse], str, tuple[str, ...], Sequence[K]]] = deque()
        self._answered: set[str] = set()
        self._refused: list[tuple[str, K, LycheeError]] = []

    async def send_batches(self, model_name: str, outputs: tuple[str, ...], lengths: Mapping[K, int]) -> None:
        """Send items grouped by their length in tokens, as many in one request as the lane allows.

        Where MAX_UNANSWERED requests to the model wait for their answers, the oldest is waited for first.
        """
        by_length: dict[int, list[K]] = {}
        for item, length in lengths.items():
            by_length.setdefault(length, []).append(item)
        most = self.find_max_batch_size(model_name) if lengths else 0
        for length, members in sorted(by_length.items()):
            while members:
                size = min(most, self._pace.find_rows(length)) if self._lane.is_patient else most
                group, members = members[:size], members[size:]
                started = time.perf_counter()
                await self.send_in_turn(model_name, outputs, group)
                if self._lane.is_patient:
                    self._pace.note(len(group) * length, time.perf_counter() - started)

    async def send_in_turn(self, model_name: str, outputs: tuple[str, ...], items: Sequence[K]) -> None:
        """Send these items together, once fewer than MAX_UNANSWERED requests to the model wait for their answers.

        A patient call waits for the answer.
        """
        while sum(sent[1] == model_name for sent in self._sent) >= MAX_UNANSWERED:
            await self._read(*self._sent.popleft())
        await self.send(model_name, outputs, self._make_tensors(items), items)
        if self._lane.is_patient:
            await self._read_all()

    async def send(
        self, model_name: str, outputs: tuple[str, ...], tensors: Mapping[str, Tensor], items: Sequence[K]
    ) -> None:
        """Send these items together."""
        request = InferRequest(model_name, tensors, outputs, model_version=self._model_version)
        handle = await Send(request, self._lane.max_rows_in_flight)
        self._sent.append((handle, model_name, outputs, items))

    async def read(self) -> None:
        """Wait for every answer, the oldest first. Items of a batch that fails are sent again one by one.

        Raises:
            InferenceError: The model failed on an item alone, also when it was asked again.
            RequestRejectedError: The model refused an item, and took no other one.
        """
        await self._read_all()
        for model_name, item, error in self._refused:
            if model_name not in self._answered:
                raise error
            self._fail(item, error)
        self._refused.clear()

    async def _read_all(self) -> None:
        while self._sent:
            await self._read(*self._sent.popleft())

    async def read_answered(self) -> None:
        """Take the answers that are there, so that their requests are let go of."""
        sent, self._sent = self._sent, deque()
        for request in sent:
            if request[0].is_done:
                await self._read(*request)
            else:
                self._sent.append(request)

    def find_max_batch_size(self, model_name: str) -> int:
        """Return how many rows a request to the model may have.

        Raises:
            ContractError: The manifest does not say.
        """
        if model_name not in self._max_batch_size:
            raise ContractError(f"the server's manifest has no max_batch_size.{model_name}; export the model again")
        return self._max_batch_size[model_name]

    async def _read(
        self, handle: Handle[InferResponse], model_name: str, outputs: tuple[str, ...], items: Sequence[K]
    ) -> None:
        try:
            response = await Wait(handle)
        except BATCH_ERRORS as error:
            if len(items) > 1:
                for item in items:
                    await self.send(model_name, outputs, self._make_tensors([item]), [item])
            elif isinstance(error, RequestRejectedError):
                self._refused.append((model_name, items[0], error))
            else:
                raise
        else:
            self._answered.add(model_name)
            self._use(model_name, response, items)

"""What the rankers of all frameworks do alike: one call, and no document lost in silence."""

from __future__ import annotations

import asyncio
import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, Generic, Literal, TypeAlias, TypeVar

from lychee_client import (
    UNSET,
    AsyncLycheeClient,
    Calibration,
    ConfigurationError,
    InvalidInputError,
    LycheeClient,
    LycheeError,
    LycheeWarning,
    Policy,
    RerankOptions,
    RerankResponse,
    RerankResult,
)
from lychee_client.types import Input

D = TypeVar("D")

OnError: TypeAlias = Literal["drop", "raise"]
# The fields of a ranker that go with every call.
OPTIONS: Final = ("top_n", "score_threshold", "instruction", "policy", "timeout_s")
_NAMED = 5  # more problems than that are only counted


@dataclass
class Reranker(Generic[D]):
    """Ranks what a framework calls a document, with a client that is made when it is first needed.

    Args:
        to_input: Reads a document; InvalidInputError is that document's own.
        name_of: What to call a document in a message: its id, or where it comes from.
        url: See LycheeClient.
        headers: See LycheeClient.
        client: A client to use, which stays open, in the place of `url`, `headers` and `model`. A LycheeClient serves
            asynchronous calls in a thread; an AsyncLycheeClient serves only those.
        on_error: What happens to documents that cannot be ranked: "drop" leaves them out, with a LycheeWarning that
            names them, and "raise" ends the call.
        model: See LycheeClient; None is LYCHEE_MODEL, then the server's own choice.

    Raises:
        ConfigurationError: An argument cannot be used.
    """

    to_input: Callable[[D], Input]
    name_of: Callable[[D], str | None]
    url: str | None = None
    headers: Mapping[str, str] | None = field(default=None, repr=False)
    client: LycheeClient | AsyncLycheeClient | None = None
    on_error: OnError = "drop"
    model: str | None = None

    def __post_init__(self) -> None:
        if self.client is not None and (self.url is not None or self.headers or self.model is not None):
            raise ConfigurationError("client is given together with url, headers or model; expected one or the other")
        if self.on_error not in ("drop", "raise"):
            raise ConfigurationError(f"on_error is {self.on_error!r}; expected 'drop' or 'raise'")

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the clients that are made when needed, so that rankers can be copied and sent elsewhere."""
        return {name: value for name, value in self.__dict__.items() if name in self.__dataclass_fields__}

    @cached_property
    def own_client(self) -> LycheeClient:
        """The client for calls that block."""
        client = LycheeClient(self.url, headers=self.headers or {}, model=self.model or UNSET)
        weakref.finalize(self, client.close)  # users of frameworks rarely close what they put in
        return client

    @cached_property
    def own_async_client(self) -> AsyncLycheeClient:
        """The client for calls that are awaited."""
        client = AsyncLycheeClient(self.url, headers=self.headers or {}, model=self.model or UNSET)
        weakref.finalize(self, client._release)
        return client

    def rank(self, query: Input, documents: Sequence[D], **options: Any) -> list[tuple[D, RerankResult]]:
        """Return the ranked documents, best first.

        Args:
            query: See LycheeClient.rerank.
            documents: What `to_input` reads.
            options: See RerankOptions; those that are None are left out.

        Raises:
            InvalidInputError: The query cannot be used; or a document, with `on_error="raise"`.
            LycheeError: See LycheeClient.rerank.
        """
        if isinstance(self.client, AsyncLycheeClient):
            raise ConfigurationError(
                "client is an AsyncLycheeClient, which cannot serve a call that blocks; pass a LycheeClient or a url"
            )
        call = _Call(self, documents)
        client = self.own_client if self.client is None else self.client
        return call.finish(client.rerank(query, call.inputs, **_given(options)))

    async def arank(self, query: Input, documents: Sequence[D], **options: Any) -> list[tuple[D, RerankResult]]:
        """Return what `rank` does."""
        if isinstance(self.client, LycheeClient):
            return await asyncio.to_thread(self.rank, query, documents, **options)
        call = _Call(self, documents)
        client = self.own_async_client if self.client is None else self.client
        return call.finish(await client.rerank(query, call.inputs, **_given(options)))

    def close(self) -> None:
        """Close the client that was made for calls that block."""
        if "own_client" in self.__dict__:
            self.__dict__.pop("own_client").close()

    async def aclose(self) -> None:
        """Close the clients that were made."""
        self.close()
        if "own_async_client" in self.__dict__:
            await self.__dict__.pop("own_async_client").aclose()


class _Call(Generic[D]):
    """One call: which documents are sent, and which could not even be read."""

    def __init__(self, reranker: Reranker[D], documents: Sequence[D]) -> None:
        self.inputs: list[Input] = []
        self._reranker, self._documents = reranker, documents
        self._sent: list[int] = []
        self._problems: dict[int, LycheeError] = {}
        for index, document in enumerate(documents):
            try:
                self.inputs.append(reranker.to_input(document))
                self._sent.append(index)
            except InvalidInputError as error:
                self._problems[index] = error

    def finish(self, response: RerankResponse) -> list[tuple[D, RerankResult]]:
        self._problems |= {self._sent[failed.index]: failed.error for failed in response.errors}
        if self._problems:
            self._report()
        return [(self._documents[self._sent[result.index]], result) for result in response.results]

    def _report(self) -> None:
        problems = [f"{self._name(index)}: {self._problems[index]}" for index in sorted(self._problems)]
        more = f"; and {len(problems) - _NAMED} more" if len(problems) > _NAMED else ""
        message = f"of {len(self._documents)} documents, {len(problems)} could not be ranked: "
        message += "; ".join(problems[:_NAMED]) + more
        if self._reranker.on_error == "raise":
            first = min(self._problems)
            raise InvalidInputError(message, index=first) from self._problems[first]
        warnings.warn(f"{message}. They are left out; on_error='raise' refuses them", LycheeWarning, stacklevel=5)

    def _name(self, index: int) -> str:
        name = self._reranker.name_of(self._documents[index])
        return f"document {index}" if name is None else f"document {index} ({name})"


def scores_of(result: RerankResult) -> dict[str, Any]:
    """Return what a framework's metadata get of a result."""
    return {"relevance_score": result.relevance_score, "logit": result.logit, "decision": result.decision}


def _given(options: Mapping[str, Any]) -> RerankOptions:
    return {name: value for name, value in options.items() if value is not None}  # type: ignore[return-value]


AnyPolicy: TypeAlias = str | Policy | Calibration
AnyClient: TypeAlias = LycheeClient | AsyncLycheeClient

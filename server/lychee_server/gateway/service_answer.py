"""The outcome of one call to the service, whoever asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lychee_client import InvalidInputError, RerankResponse
from lychee_client.types import Input, images_of

__all__ = ["ServiceAnswer", "Usage"]


@dataclass(frozen=True, slots=True)
class Usage:
    """How much one call had the model read, of query and all documents, whichever results were asked for.

    Attributes:
        tokens: How many tokens the query and the documents have, as the model read them, all chunks counted.
        images: How many images the query and the documents have.
        documents: How many documents were scored.
    """

    tokens: int = 0
    images: int = 0
    documents: int = 0

    @classmethod
    def of(cls, query: Input, documents: Sequence[Input | InvalidInputError], response: RerankResponse) -> Usage:
        """Return what a call cost.

        Args:
            query: The query of the call.
            documents: The documents of the call; one that was refused is the error that says why.
            response: What it was answered, with all results.
        """
        read = [query, *(documents[result.index] for result in response.results)] if response.query else []
        images = sum(len(images_of(each)) for each in read if not isinstance(each, InvalidInputError))
        return cls(response.tokens_read, images, len(response.results))


@dataclass(frozen=True, slots=True)
class ServiceAnswer:
    """The outcome of one call.

    Attributes:
        response: The client's response; its errors include the documents that were refused before they reached it.
        request_id: The id under which the logs of the gateway and of Triton know the call.
        usage: What it cost.
        everything: The same with all results, whichever were asked for.
    """

    response: RerankResponse
    request_id: str
    usage: Usage = Usage()
    everything: RerankResponse | None = None

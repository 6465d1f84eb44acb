"""The outcome of one call to the service, whoever asked."""

from __future__ import annotations

from dataclasses import dataclass

from lychee_client import RerankResponse

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


@dataclass(frozen=True, slots=True)
class ServiceAnswer:
    """The outcome of one call.

    Attributes:
        response: The client's response; its errors include the documents that were refused before they reached it.
        request_id: The id under which the logs of the gateway and of Triton know the call.
        usage: What it cost.
    """

    response: RerankResponse
    request_id: str
    usage: Usage = Usage()

"""Responses under the caller's indexes: the client was sent only the documents that were not refused before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lychee_client import DocumentError, InvalidInputError, InvalidOutputError, RerankResponse
from lychee_client.types import Input

from lychee_server.gateway.errors import find_fault


def place_response(
    response: RerankResponse, documents: Sequence[Input | InvalidInputError], doubts: Sequence[str]
) -> RerankResponse:
    """Return a response with the caller's indexes, and with an error for each document that was refused.

    Args:
        response: Of the client, to the documents that were not refused.
        documents: All documents; one that was refused is the error that says why.
        doubts: Further warnings.
    """
    accepted = [index for index, document in enumerate(documents) if not isinstance(document, InvalidInputError)]
    refused = tuple(
        DocumentError(index, str(document), document)
        for index, document in enumerate(documents)
        if isinstance(document, InvalidInputError)
    )
    failed = tuple(_place(error, accepted[error.index]) for error in response.errors)
    return replace(
        response,
        results=tuple(replace(result, index=accepted[result.index]) for result in response.results),
        unselected=tuple(replace(result, index=accepted[result.index]) for result in response.unselected),
        errors=tuple(sorted((*refused, *failed), key=lambda error: error.index)),
        warnings=(*response.warnings, *doubts),
    )


def _place(failed: DocumentError, index: int) -> DocumentError:
    """Return a failure under the caller's index. What the server said is told as an error of the call would tell it."""
    if isinstance(failed.error, InvalidOutputError):
        failed.error.index = index
    return replace(failed, index=index, message=find_fault(failed.error).message or failed.message)

"""From a call to the JSON that a gateway reads."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec
import numpy as np

from lychee_client._errors import InvalidInputError
from lychee_client._options import RerankOptions
from lychee_client._pipelines.scoring import check_input
from lychee_client.preprocessing.image import Image
from lychee_client.thresholds import Policy
from lychee_client.types import DocumentError, Images, ImageText, Input, images_of, text_of

# The options that travel under their own names, where they are given.
SENT: Final = (
    "max_tokens_per_doc",
    "max_tokens_per_query",
    "min_results",
    "priority",
    "relevant_spans",
    "score_threshold",
    "server_timings",
    "top_n",
    "truncation",
    "user",
)
# The options that something else is made of.
TRANSLATED: Final = ("chunking", "instruction", "policy", "request_id", "return_documents", "timeout_s")
# Those that a gateway cannot follow.
REFUSED: Final = ("keep_unselected",)
ALL_CHUNKS: Final = 2**31 - 1  # null would be the gateway's default


@dataclass(frozen=True, slots=True)
class Body:
    """What is sent of a call.

    Attributes:
        content: The JSON; empty where no document can be sent.
        indexes: The positions of the sent documents in the caller's list.
        errors: The documents that cannot be sent, by the caller's positions.
    """

    content: bytes
    indexes: tuple[int, ...]
    errors: tuple[DocumentError, ...]


def make_body(
    query: Input,
    documents: Sequence[Input],
    options: RerankOptions,
    policy: Policy,
    instruction: str | None,
    timeout_s: float | None,
    model: str | None = None,
) -> Body:
    """Read and encode what a call is about. To be run in a thread.

    Args:
        query: The query; it has passed `check_input`.
        documents: The documents, of any type.
        options: The options of the call.
        policy: The policy that decides: the call's own, so that the gateway's does not.
        instruction: The instruction; None for a model that reads none, and for the model's default.
        timeout_s: Seconds that the gateway may take. None leaves them to the gateway.
        model: The name of the model that is meant. None leaves the choice to the gateway.

    Raises:
        InvalidInputError: The query's image cannot be read.
    """
    sent: list[object] = []
    indexes: list[int] = []
    errors: list[DocumentError] = []
    for index, document in enumerate(documents):
        try:
            check_input(document)
            sent.append(_to_json(document))
        except InvalidInputError as error:
            error.index = index
            errors.append(DocumentError(index, str(error), error))
        else:
            indexes.append(index)
    try:
        content: dict[str, Any] = {"query": _to_json(query), "documents": sent}
    except InvalidInputError as error:
        raise InvalidInputError(f"query: {error}") from error
    content["policy"] = {"accept": policy.accept, "review": policy.review}
    if instruction is not None:
        content["instruction"] = instruction
    if model is not None:
        content["model"] = model
    if timeout_s is not None:
        content["timeout_ms"] = max(1.0, 1e3 * timeout_s)
    if (chunking := options.get("chunking")) is not None:
        most = ALL_CHUNKS if chunking.max_chunks_per_doc is None else chunking.max_chunks_per_doc
        content["chunking"] = replace(chunking, max_chunks_per_doc=most)
    content |= {name: options.get(name) for name in SENT if options.get(name) is not None}
    return Body(msgspec.json.encode(content, enc_hook=_to_number) if sent else b"", tuple(indexes), tuple(errors))


def _to_json(value: Input) -> object:
    text, images = text_of(value), [_to_data_url(image) for image in images_of(value)]
    if not images:
        return text
    several = isinstance(value.image if isinstance(value, ImageText) else value, Images)
    shown: dict[str, object] = {"images": images} if several else {"image": images[0]}
    return shown if text is None else {"text": text, **shown}


def _to_data_url(image: Image) -> str:
    return f"data:image/*;base64,{base64.b64encode(image.to_file()).decode('ascii')}"


def _to_number(value: object) -> object:
    """Return a number of numpy as one of Python."""
    if isinstance(value, np.generic):
        return value.item()
    raise NotImplementedError(f"options hold a {type(value).__name__}")

"""The shapes of requests, as the API's documentation shows them."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from fastapi import Query
from lychee_client.spans import DEFAULT_THRESHOLD, SpansMode
from pydantic import Field, WithJsonSchema

from lychee_server.gateway.documents import MAX_PARTS, PART_KINDS
from lychee_server.gateway.lax_types import WHOLE, Count, LaxModel, Natural, Positive, Unit

PIXEL: Final = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJ"
    "RU5ErkJggg=="
)

_TEXT: Final[dict[str, Any]] = {"type": "string", "minLength": 1, "pattern": r"\S"}
_IMAGE: Final[dict[str, Any]] = {"type": "string", "minLength": 1}
_IMAGE_URL: Final[dict[str, Any]] = {
    "anyOf": [_IMAGE, {"type": "object", "properties": {"url": _IMAGE}, "required": ["url"]}]
}
_CONTENT_SCHEMA: Final[dict[str, Any]] = {
    "description": "A text, an image or several, or both. Images are data URLs (data:image/png;base64,...) or the "
    "base64 alone; http(s) URLs where the gateway was started with --image-host. Texts of `content` are joined by line "
    "breaks. Other keys are ignored, with a warning.",
    "anyOf": [
        {**_TEXT, "description": "A text, never a path or URL."},
        {
            "type": "object",
            "properties": {"text": _TEXT, "image": _IMAGE, "image_url": _IMAGE_URL},
            "minProperties": 1,
        },
        {
            "type": "object",
            "properties": {
                "text": _TEXT,
                "images": {"type": "array", "minItems": 1, "maxItems": MAX_PARTS, "items": _IMAGE},
            },
            "required": ["images"],
        },
        {
            "type": "object",
            "properties": {
                "content": {
                    "type": "array",
                    "minItems": 1,
                    "maxItems": MAX_PARTS,
                    "items": {
                        "type": "object",
                        "properties": {
                            "type": {"enum": list(PART_KINDS)},
                            "text": _TEXT,
                            "image": _IMAGE,
                            "image_url": _IMAGE_URL,
                        },
                        "required": ["type"],
                    },
                }
            },
            "required": ["content"],
        },
    ],
}
# Read by documents.py, because one bad document must not fail the whole request.
Content = Annotated[Any, WithJsonSchema(_CONTENT_SCHEMA)]


ModelQuery = Annotated[
    str | None, Query(alias="model", description="A name of the model that is meant; without it, the default one.")
]


class NamedInstruction(LaxModel):
    """One of GET /v1/instructions."""

    name: str = Field(description="Of the instruction.")
    language: Literal["en", "zh"] = Field("en", description="Of its text.")


class CustomPolicy(LaxModel):
    """Two inclusive thresholds."""

    accept: Unit = Field(description="From this score on, a document is accepted.")
    review: Unit | None = Field(
        None, description="From this score on, up to `accept`, it is marked for review; default: `accept`."
    )


class ChunkingFields(LaxModel):
    """How a long document is cut."""

    overlap_tokens: Natural | None = Field(None, description="Common to two chunks. Default: an eighth, at most 80.")
    max_chunks_per_doc: Count | None = Field(None, description="What is beyond is not read. Default: 10.")


class SpansRequest(LaxModel):
    """Which sentences of the results' texts are wanted, as Cohere names it."""

    mode: SpansMode = Field("enabled", description='"disabled" is the same as leaving all of it out.')
    threshold: Unit = Field(DEFAULT_THRESHOLD, description="Inclusive; the lowest score of a sentence.")
    max_spans: Count | None = Field(None, description="At most so many per document; null: all.")


class CallOptions(LaxModel):
    """What reranking and scoring have in common."""

    model: str | None = Field(
        None,
        description="One of /v1/models, or empty for the default. Another name gets 404 where there are several "
        "models or the gateway says so, else a warning.",
    )
    instruction: str | NamedInstruction | None = Field(
        None, description="What makes a document relevant, for models that read one: a text, or a named one."
    )
    policy: Literal["strict", "balanced", "exploratory"] | CustomPolicy | None = Field(
        None, description="Turns scores into decisions. Default: the gateway's."
    )
    priority: Literal["interactive", "bulk"] | Annotated[int, Field(ge=0, le=999), WHOLE] | None = Field(
        None, description='"bulk" lets others pass; so does a number above 0, as vendors\' clients send it.'
    )
    timeout_ms: Positive | None = Field(None, description="For the whole call, waiting included.")
    server_timings: bool = Field(False, description="Queue and compute times as Triton counts them per model.")


class RerankRequest(CallOptions):
    """Documents to be ranked for a query."""

    query: Content = Field(description="What is searched for.")
    # An empty list is no error of shape, since it may well come from a search that found nothing.
    documents: list[Content] = Field(description="What is ranked.", json_schema_extra={"minItems": 1})
    top_n: Natural | None = Field(None, description="At most so many results; 0 or null: all.")
    score_threshold: Unit | None = Field(None, description="Inclusive; what is below is left out.")
    min_results: Natural = Field(0, description="So many of the best stay, even below `score_threshold`.")
    return_documents: bool = Field(False, description="Put each document into its result, as it was sent.")
    user: str | None = Field(
        None,
        coerce_numbers_to_str=True,
        description="Who asks, where the gateway runs an experiment: a key that stays the same for one user. It is "
        "neither stored nor logged; a pseudonym is.",
    )
    strict: bool = Field(
        False, description="Refuse the call with status 400 if a document cannot be ranked; `?strict=true` does too."
    )
    max_tokens_per_doc: Natural | None = Field(None, description="Of each text; 0 or null: the model's own limit.")
    max_tokens_per_query: Natural | None = Field(None, description="Of the query's text; 0 or null: likewise.")
    truncate_prompt_tokens: Annotated[int, Field(ge=-1), WHOLE] | None = Field(
        None, description="Both limits at once, as vLLM's clients send it; -1, 0 or null: the model's own limit."
    )
    truncation: bool = Field(True, description="False: what is too long is an error instead of being cut.")
    chunking: ChunkingFields | bool | None = Field(
        None, description="A document that is too long is scored by its best chunk; true: with the defaults."
    )
    overlap_tokens: Natural | None = Field(None, description="The one of `chunking`, which it switches on.")
    max_chunks_per_doc: Count | None = Field(None, description="The one of `chunking`, which it switches on.")
    relevant_spans: SpansRequest | None = Field(
        None, description="Also find the sentences that match the query, in the texts of the results."
    )
    rank_fields: Any = Field(None, description="Ignored, with a warning: documents have the keys text and image.")


class ScoreRequest(CallOptions):
    """One pair to be scored."""

    query: Content = Field(description="What is searched for.")
    document: Content = Field(description="What is scored.")


RERANK_EXAMPLES: Final[dict[str, Any]] = {
    "text": {
        "summary": "Texts",
        "value": {"query": "一只猫", "documents": ["店里的小猫喜欢在窗台上晒太阳。", "a cup of coffee"], "top_n": 1},
    },
    "image": {
        "summary": "Images",
        "value": {"query": "a white square", "documents": [{"image": PIXEL}], "policy": "strict"},
    },
    "multimodal": {
        "summary": "Texts and images, alone and together",
        "value": {
            "query": {"content": [{"type": "text", "text": "a tabby cat"}]},
            "documents": [
                "一只虎斑猫",
                {"text": "虎斑猫，两岁", "image": PIXEL},
                {
                    "content": [
                        {"type": "text", "text": "a cat"},
                        {"type": "image_url", "image_url": {"url": PIXEL}},
                    ]
                },
            ],
            "policy": {"accept": 0.7, "review": 0.4},
            "instruction": {"name": "search", "language": "zh"},
            "return_documents": True,
            "timeout_ms": 10000,
        },
    },
}
SCORE_EXAMPLES: Final[dict[str, Any]] = {
    "text": {"summary": "Two texts", "value": {"query": "一只猫", "document": "店里的小猫"}},
    "image": {"summary": "A text and an image", "value": {"query": "a white square", "document": {"image": PIXEL}}},
    "multimodal": {
        "summary": "An image with a text",
        "value": {"query": {"image": PIXEL}, "document": {"text": "a square", "image": PIXEL}},
    },
}

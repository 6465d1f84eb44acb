"""The shapes of requests, as the API's documentation shows them."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from lychee_client.spans import DEFAULT_THRESHOLD, SpansMode
from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from lychee_server.gateway.documents import MAX_PARTS

PIXEL: Final = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJ"
    "RU5ErkJggg=="
)

_TEXT: Final[dict[str, Any]] = {"type": "string", "minLength": 1, "pattern": r"\S"}
_IMAGE: Final[dict[str, Any]] = {"type": "string", "format": "uri", "minLength": 1}
_CONTENT_SCHEMA: Final[dict[str, Any]] = {
    "description": "A text, an image or several, or both. Images are data URLs (data:image/png;base64,...); http(s) "
    "URLs where the gateway was started with --image-host. Texts of `content` are joined by line breaks.",
    "anyOf": [
        {**_TEXT, "description": "A text, never a path or URL."},
        {
            "type": "object",
            "properties": {"text": _TEXT, "image": _IMAGE},
            "minProperties": 1,
            "additionalProperties": False,
        },
        {
            "type": "object",
            "properties": {
                "text": _TEXT,
                "images": {"type": "array", "minItems": 1, "maxItems": MAX_PARTS, "items": _IMAGE},
            },
            "required": ["images"],
            "additionalProperties": False,
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
                            "type": {"enum": ["text", "image_url", "image"]},
                            "text": _TEXT,
                            "image": _IMAGE,
                            "image_url": {
                                "anyOf": [
                                    _IMAGE,
                                    {"type": "object", "properties": {"url": _IMAGE}, "required": ["url"]},
                                ]
                            },
                        },
                        "required": ["type"],
                    },
                }
            },
            "required": ["content"],
            "additionalProperties": False,
        },
    ],
}
# Read by documents.py, because one bad document must not fail the whole request.
Content = Annotated[Any, WithJsonSchema(_CONTENT_SCHEMA)]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class NamedInstruction(_Request):
    """One of GET /v1/instructions."""

    name: str = Field(description="Of the instruction.")
    language: Literal["en", "zh"] = Field("en", description="Of its text.")


class CustomPolicy(_Request):
    """Two inclusive thresholds."""

    accept: float = Field(ge=0, le=1, description="From this score on, a document is accepted.")
    review: float | None = Field(
        None, ge=0, le=1, description="From this score on, up to `accept`, it is marked for review; default: `accept`."
    )


class SpansRequest(_Request):
    """Which sentences of the results' texts are wanted, as Cohere names it."""

    mode: SpansMode = Field("enabled", description='"disabled" is the same as leaving all of it out.')
    threshold: float = Field(DEFAULT_THRESHOLD, ge=0, le=1, description="Inclusive; the lowest score of a sentence.")
    max_spans: int | None = Field(None, ge=1, description="At most so many per document; null: all.")


class CallOptions(_Request):
    """What reranking and scoring have in common."""

    model: str | None = Field(None, description="The served model, see /v1/models; may be left out.")
    instruction: str | NamedInstruction | None = Field(
        None, description="What makes a document relevant, for models that read one: a text, or a named one."
    )
    policy: Literal["strict", "balanced", "exploratory"] | CustomPolicy | None = Field(
        None, description="Turns scores into decisions. Default: the gateway's."
    )
    priority: Literal["interactive", "bulk"] | Annotated[int, Field(ge=0, le=999)] | None = Field(
        None, description='"bulk" lets others pass; so does a number above 0, as vendors\' clients send it.'
    )
    timeout_ms: float | None = Field(None, gt=0, description="For the whole call, waiting included.")
    server_timings: bool = Field(False, description="Queue and compute times as Triton counts them per model.")


class RerankRequest(CallOptions):
    """Documents to be ranked for a query."""

    query: Content = Field(description="What is searched for.")
    # An empty list is no error of shape, since it may well come from a search that found nothing.
    documents: list[Content] = Field(description="What is ranked.", json_schema_extra={"minItems": 1})
    top_n: int | None = Field(None, ge=0, description="At most so many results; 0 or null: all.")
    score_threshold: float | None = Field(None, ge=0, le=1, description="Inclusive; what is below is left out.")
    min_results: int = Field(0, ge=0, description="So many of the best stay, even below `score_threshold`.")
    return_documents: bool = Field(False, description="Put each document into its result, as it was sent.")
    relevant_spans: SpansRequest | None = Field(
        None, description="Also find the sentences that match the query, in the texts of the results."
    )
    rank_fields: Any = Field(None, description="Ignored, with a warning: documents have the keys text and image.")
    max_tokens_per_doc: Any = Field(None, description="Ignored, with a warning: the model's own limit counts.")
    max_chunks_per_doc: Any = Field(None, description="Ignored, with a warning: documents are not cut into chunks.")


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

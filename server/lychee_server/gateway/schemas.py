"""The shapes of requests and answers, as the API's documentation shows them."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

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


class _Answer(BaseModel):
    """Made from what the client returns, by the names of its attributes: `model_validate` takes those that it knows."""

    model_config = ConfigDict(from_attributes=True)


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
    rank_fields: Any = Field(None, description="Ignored, with a warning: documents have the keys text and image.")
    max_tokens_per_doc: Any = Field(None, description="Ignored, with a warning: the model's own limit counts.")
    max_chunks_per_doc: Any = Field(None, description="Ignored, with a warning: documents are not cut into chunks.")


class ScoreRequest(CallOptions):
    """One pair to be scored."""

    query: Content = Field(description="What is searched for.")
    document: Content = Field(description="What is scored.")


class ScoredDocument(_Answer):
    """What the model made of one document. Keys that make no sense for it are absent."""

    relevance_score: float = Field(description="0 to 1; an order, not a proportion.")
    logit: float = Field(description="The score before the sigmoid.")
    decision: Literal["accept", "review", "reject"] = Field(description="What the policy makes of the score.")
    modality: Literal["text", "image", "image_text"]
    truncated: bool = Field(description="True if the end of the text did not count.")
    tokens: int | None = Field(None, description="Length of the text as the model read it.")
    image_size: tuple[int, int] | None = Field(None, description="Width and height of the first image in pixels.")
    image_resized_to: tuple[int, int] | None = Field(None, description="Width and height as the model read it.")
    image_tokens: int | None = Field(None, description="How many of `tokens` are images.")


class RankedDocument(ScoredDocument):
    """One result."""

    index: int = Field(description="Position in the request's documents.")
    below_threshold: bool = Field(False, description="True if it is here only because of `min_results`.")
    document: dict[str, Any] | None = Field(None, description="As it was sent; a plain text as {text: ...}.")


class FailedDocument(_Answer):
    """A document that could not be ranked."""

    index: int = Field(description="Position in the request's documents.")
    message: str = Field(description="What is wrong and what to do.")
    type: str = Field(description="For programs: invalid_input, invalid_output (the model gave no number) or another.")


class QueryReport(_Answer):
    """What the model read of the query."""

    modality: Literal["text", "image", "image_text"]
    truncated: bool = Field(description="True if the end of the query's text did not count.")
    tokens: int | None = Field(
        None, description="Length of its text as the model read it; absent where every document's `tokens` count it."
    )


class UsageReport(_Answer):
    """What the call cost, whatever part of the results was asked for."""

    total_tokens: int = Field(description="Of the query and of all documents that were scored.")
    prompt_tokens: int
    completion_tokens: int = 0
    images: int = Field(description="Of the query and of all documents that were scored.")
    documents: int


class ServerTimings(_Answer):
    """What Triton counted for one model while the call ran; other callers' requests count too."""

    requests: int
    queue_ms: float
    compute_ms: float


class CallTimings(_Answer):
    """Milliseconds; the stages overlap."""

    total_ms: float
    preprocess_ms: float
    encode_query_ms: float
    score_documents_ms: float
    server: dict[str, ServerTimings] | None = None


class CacheReport(_Answer):
    """What the embedding cache had."""

    hits: int
    misses: int


class _Identity(_Answer):
    id: str = Field(description="The request's id, under which the logs know it.")
    object: str
    model: str


class _Ranking(_Answer):
    results: list[RankedDocument] = Field(description="Best first, by logit; equal ones in the order of the request.")
    errors: list[FailedDocument] = Field(description="The documents that could not be ranked.")


class _Report(_Answer):
    warnings: list[str] = Field(description="What does not fit together.")
    query: QueryReport | None = None
    usage: UsageReport
    timings: CallTimings
    embedding_cache: CacheReport | None = None


class RerankAnswer(_Report, _Ranking, _Identity):  # the fields of the last base come first
    """Ranked documents."""

    object: Literal["rerank"] = "rerank"
    meta: dict[str, Any] = Field(description="As vendors' clients read it.")


class ScoreAnswer(_Report, ScoredDocument, _Identity):
    """One scored pair."""

    object: Literal["score"] = "score"


class ErrorAnswer(_Answer):
    """What every error looks like."""

    message: str = Field(description="What happened and what to do.")
    type: str = Field(description="For programs, such as invalid_request or too_busy.")
    param: str | None = Field(description="The field of the request that is wrong.")
    request_id: str | None = Field(description="Also in the header x-request-id.")


class ExecutionEntry(_Answer):
    """What executes one encoder."""

    provider: str = Field(description="cpu, openvino, cuda or unknown.")
    precision: str | None = Field(description="In which it computes; null: the server does not tell.")
    reason: str = Field(description="Why it was chosen; empty where nothing was.")


class ModelEntry(_Answer):
    """The served model."""

    id: str
    object: Literal["model"] = "model"
    owned_by: str = "lychee-rerank"
    revision: str
    precision: str = Field(description="How the weights are stored.")
    execution: dict[str, ExecutionEntry] = Field(description="What executes the encoders, by name.")
    family: str
    max_tokens: int
    reads_instruction: bool
    default_instruction: str | None
    max_img_size: int | None = Field(description="Most pixels of an image as the side of a square; null: one size.")


class ModelList(_Answer):
    """All models; there is one."""

    object: Literal["list"] = "list"
    data: list[ModelEntry]


class InstructionEntry(_Answer):
    """A named instruction."""

    name: str
    purpose: str
    texts: dict[str, str] = Field(description='By language; empty for "default", which the model brings along.')


class InstructionList(_Answer):
    """All named instructions."""

    object: Literal["list"] = "list"
    data: list[InstructionEntry]


class HealthAnswer(_Answer):
    """Whether the gateway can be trusted."""

    status: Literal["ok", "degraded", "unavailable"]
    latency_ms: float | None = Field(None, description="Of a pair that was just scored.")
    reason: str | None = Field(None, description="Why it is not ok.")


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

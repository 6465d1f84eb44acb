"""The shapes of answers, as the API's documentation shows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from lychee_client import Policy
from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer


class _Answer(BaseModel):
    """Made from what the client returns, by the names of its attributes: `model_validate` takes those that it knows."""

    model_config = ConfigDict(from_attributes=True)


class ScoredDocument(_Answer):
    """What the model made of one document. Keys that make no sense for it are absent."""

    relevance_score: float = Field(description="0 to 1; an order, not a proportion.")
    logit: float = Field(description="The score before the sigmoid.")
    decision: Literal["accept", "review", "reject"] = Field(description="What the policy makes of the score.")
    modality: Literal["text", "image", "image_text"]
    truncated: bool = Field(description="True if the end of the text did not count.")
    tokens: int | None = Field(None, description="Length of the text, or of its best chunk, as the model read it.")
    image_size: tuple[int, int] | None = Field(None, description="Width and height of the first image in pixels.")
    image_resized_to: tuple[int, int] | None = Field(None, description="Width and height as the model read it.")
    image_tokens: int | None = Field(None, description="How many of `tokens` are images.")


class ChunkReport(_Answer):
    """A part of a text, in Unicode code points."""

    start: int = Field(description="Position of its first character.")
    end: int = Field(description="Position after its last character.")


class SpanReport(ChunkReport):
    """A sentence of a result's text."""

    score: float = Field(description="The relevance score of the sentence alone, 0 to 1.")
    logit: float = Field(description="That score before the sigmoid.")


class RankedDocument(ScoredDocument):
    """One result."""

    index: int = Field(description="Position in the request's documents.")
    below_threshold: bool = Field(False, description="True if it is here only because of `min_results`.")
    document: dict[str, Any] | None = Field(None, description="As it was sent; a plain text as {text: ...}.")
    chunk: ChunkReport | None = Field(
        None, description="The best chunk, which has this score; absent where the text was not cut into chunks."
    )
    relevant_spans: list[SpanReport] | None = Field(
        None, description="The sentences that match, best first; absent where none were asked for or there is no text."
    )
    spans_truncated: bool | None = Field(None, description="True if not all sentences were scored.")


class UnrankedDocument(_Answer):
    """A document that could not be ranked, in the place of its result: behind all that could."""

    index: int = Field(description="Position in the request's documents.")
    relevance_score: float = Field(default=0.0, description="Always 0.")
    logit: None = Field(default=None, description="Always null: there is no score.")
    decision: Literal["error"] = "error"
    message: str = Field(description="What is wrong and what to do; see `errors`.")
    document: dict[str, Any] | None = Field(default=None, description="As it was sent; a plain text as {text: ...}.")

    # With a return type, pydantic would describe that in place of the fields.
    @model_serializer(mode="wrap")
    def _keep_null(self, serialize: SerializerFunctionWrapHandler):  # type: ignore[no-untyped-def]
        """Write `logit` also where what is null is left out."""
        return {"index": self.index, "relevance_score": self.relevance_score, "logit": None, **serialize(self)}


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

    total_tokens: int = Field(description="Of the query and of all documents that were scored, all chunks counted.")
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
    find_spans_ms: float = Field(0.0, description="For the sentences of relevant_spans, after all others.")
    server: dict[str, ServerTimings] | None = None


class CacheReport(_Answer):
    """What the embedding cache had."""

    hits: int
    misses: int


class _Identity(_Answer):
    id: str = Field(description="The request's id, under which the logs know it.")
    object: str
    model: str
    model_version: int | None = Field(
        None, description="Of the export that scored; changes with whatever decides a score."
    )


class _Ranking(_Answer):
    results: list[RankedDocument | UnrankedDocument] = Field(
        description="Best first, by logit; equal ones in the order of the request. Those without a score come last.",
    )
    errors: list[FailedDocument] = Field(description="The documents that could not be ranked.")


class _Report(_Answer):
    warnings: list[str] = Field(description="What does not fit together.")
    query: QueryReport | None = None
    usage: UsageReport
    timings: CallTimings
    embedding_cache: CacheReport | None = None


class ExperimentReport(_Answer):
    """Which part the call has in the gateway's experiment."""

    name: str
    arm: str


class RerankAnswer(_Report, _Ranking, _Identity):  # the fields of the last base come first
    """Ranked documents."""

    object: Literal["rerank"] = "rerank"
    meta: dict[str, Any] = Field(description="As vendors' clients read it.")
    ranking_id: str | None = Field(None, description="For POST /v1/feedback; absent where no experiment has the user.")
    experiment: ExperimentReport | None = Field(None, description="Whose settings answered; absent likewise.")


class ScoreAnswer(_Report, ScoredDocument, _Identity):
    """One scored pair."""

    object: Literal["score"] = "score"


class OpenAIError(_Answer):
    """The same for clients that read errors as OpenAI's API gives them."""

    message: str
    type: str = Field(description="invalid_request_error, rate_limit_error, server_error or another.")
    code: str = Field(description="As `type` outside.")
    param: str | None


class ErrorAnswer(_Answer):
    """What every error looks like."""

    message: str = Field(description="What happened and what to do.")
    type: str = Field(description="For programs, such as invalid_request or too_busy.")
    param: str | None = Field(description="The field of the request that is wrong.")
    request_id: str | None = Field(description="Also in the header x-request-id.")
    error: OpenAIError
    detail: str = Field(description="The message again, for clients that read it here.")
    errors: list[FailedDocument] | None = Field(
        default=None, description="The documents that could not be ranked, where none could or the request is strict."
    )


class ExecutionEntry(_Answer):
    """What executes one encoder."""

    provider: str = Field(description="cpu, openvino, cuda or unknown.")
    precision: str | None = Field(description="In which it computes; null: the server does not tell.")
    reason: str = Field(description="Why it was chosen; empty where nothing was.")


class ModelEntry(_Answer):
    """A served model."""

    id: str = Field(description="A name of the model; its first entry has its own, unless another model has the same.")
    root: str = Field(description="The model's own name, which answers have.")
    object: Literal["model"] = "model"
    model_type: Literal["rerank"] = "rerank"
    owned_by: str = "lychee-rerank"
    revision: str
    version: int | None = Field(None, description="Of the export; answers have it as `model_version`.")
    precision: str = Field(description="How the weights are stored.")
    execution: dict[str, ExecutionEntry] = Field(description="What executes the encoders, by name.")
    family: str
    max_tokens: int
    reads_instruction: bool
    default_instruction: str | None
    artifacts: dict[str, str] = Field(description="The SHA-256 of every exported file, by name.")
    max_timeout_ms: float = Field(description="The most that a call's timeout_ms may be.")
    max_img_size: int | None = Field(description="Most pixels of an image as the side of a square; null: one size.")


class OneOfSeveral(ModelEntry):
    """One of several served models."""

    name: str = Field(description="Under which the gateway's file has it; the same for all its entries.")
    default: bool = Field(description="Whether it answers calls that name none.")
    ready: bool = Field(description="Whether it takes calls now.")


class ModelList(_Answer):
    """The served models, each under each of its names."""

    object: Literal["list"] = "list"
    data: list[OneOfSeveral | ModelEntry]


class PolicyEntry(_Answer):
    """Two inclusive thresholds under a name."""

    name: str = Field(description='strict, balanced, exploratory, or "calibration": the gateway\'s calibration.')
    accept: float
    review: float


def describe_policies(policies: Mapping[str, Policy]) -> list[PolicyEntry]:
    """Return policies as answers list them."""
    return [PolicyEntry(name=name, accept=policy.accept, review=policy.review) for name, policy in policies.items()]


class SettingsAnswer(_Answer):
    """What calls may ask for, and what they get if they ask for nothing."""

    version: str
    policies: list[PolicyEntry]
    default_policy: str = Field(description="The name of the one that decides where a request names none.")
    max_documents: int
    max_request_mb: int
    timeout_ms: float


class InstructionEntry(_Answer):
    """A named instruction."""

    name: str
    purpose: str
    texts: dict[str, str] = Field(description='By language; empty for "default", which the model brings along.')


class InstructionList(_Answer):
    """All named instructions."""

    object: Literal["list"] = "list"
    data: list[InstructionEntry]


class ModelHealth(_Answer):
    """Whether a model can be trusted."""

    status: Literal["ok", "degraded", "unavailable"]
    latency_ms: float | None = Field(None, description="Of a pair that was just scored.")
    reason: str | None = Field(None, description="Why it is not ok.")


class HealthAnswer(ModelHealth):
    """Whether the gateway can be trusted."""


class HealthOfSeveral(HealthAnswer):
    """Whether the gateway can be trusted, and each of its models."""

    models: dict[str, ModelHealth] = Field(description="By their names.")

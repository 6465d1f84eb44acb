"""What goes into a client and what comes out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, overload

from lychee_client._errors import LycheeError
from lychee_client.manifest.manifest import ModelIdentity
from lychee_client.manifest.prompt_spec import Modality
from lychee_client.preprocessing.image import Image
from lychee_client.spans import RelevantSpan
from lychee_client.thresholds import Decision
from lychee_client.transports.replica import ReplicaStatus

Priority: TypeAlias = Literal["interactive", "bulk"]


@dataclass(frozen=True, slots=True)
class Text:
    """A text query or document; a plain `str` means the same."""

    text: str


@dataclass(frozen=True, slots=True)
class Images:
    """Several images that are one query or document, in the order in which the model reads them.

    For Qwen-VL rerankers, up to as many per pair of query and document as the model was exported with (`lychee export
    --max-images`).
    """

    images: Sequence[Image]

    def __post_init__(self) -> None:
        object.__setattr__(self, "images", tuple(self.images))


@dataclass(frozen=True, slots=True)
class ImageText:
    """One query or document made of an image, or several, and a text. The model reads the images first."""

    image: Image | Images
    text: str


Input: TypeAlias = str | Text | Image | Images | ImageText


@dataclass(frozen=True, slots=True)
class Chunk:
    """A part of a document's text: `text[start:end]`, in Unicode code points as Python counts them."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class RerankResult:
    """One ranked document.

    Attributes:
        index: Position in the caller's list of documents.
        relevance_score: The score after the sigmoid, in [0, 1]; an order, not a proportion.
        logit: The score before the sigmoid: it still differs where the score is 0.9999999.
        decision: What the call's policy makes of the score.
        modality: The kind of document it was.
        truncated: True if the document's text was longer than what is read of it, so that its end did not count.
        tokens: The length of the document's text in tokens, as the model read it, or None without a text. A
            cross-encoder reads instruction, query and document as one: there it is the length of all that, images
            included. Of a document that was read in chunks it is the best one's.
        image_size: The width and height of the document's image in pixels, upright, or None without an image. Of
            several images it is the first one's.
        image_resized_to: The width and height of that image after resizing, before any crop, or None without an image.
        image_tokens: How many of `tokens` are the document's images; None where images are no tokens.
        below_threshold: True if the result is here only because of `min_results`.
        document: The document itself, where the call asked for it.
        chunk: The part of the document's text that has this score, the best of its chunks; None where the text was not
            cut into chunks. See Chunking.
        relevant_spans: The sentences of the document's text that match the query, best first, where the call asked for
            them; none of them may be good enough. None for a document without a text, and where none were asked for.
        spans_truncated: True if the document has more sentences than were scored for `relevant_spans`; None where that
            is None.
    """

    index: int
    relevance_score: float
    logit: float
    decision: Decision
    modality: Modality
    truncated: bool = False
    tokens: int | None = None
    image_size: tuple[int, int] | None = None
    image_resized_to: tuple[int, int] | None = None
    image_tokens: int | None = None
    below_threshold: bool = False
    document: Input | None = None
    chunk: Chunk | None = None
    relevant_spans: tuple[RelevantSpan, ...] | None = None
    spans_truncated: bool | None = None


@dataclass(frozen=True, slots=True)
class QueryReading:
    """What the model read of the query.

    Attributes:
        modality: The kind of query it was.
        truncated: True if the query's text was longer than what is read of it, so that its end did not count.
        tokens: The length of the query's text in tokens, as the model read it. None without a text, and for a
            cross-encoder, which reads it again with every document: there each result's `tokens` count it.
    """

    modality: Modality
    truncated: bool = False
    tokens: int | None = None


@dataclass(frozen=True, slots=True)
class DocumentError:
    """One document that could not be ranked.

    Attributes:
        index: Position in the caller's list of documents.
        message: What happened and what to do, for people.
        error: The exception, for programs.
    """

    index: int
    message: str
    error: LycheeError


@dataclass(frozen=True, slots=True)
class ModelTimings:
    """What the server counted for one model between the call's begin and end.

    Triton counts per model and not per request: the requests of other callers that ended meanwhile are in here too.

    Attributes:
        requests: How many requests were answered.
        queue_ms: The mean time that a request waited.
        compute_ms: The mean time that a request was computed, copying of tensors included.
    """

    requests: int
    queue_ms: float
    compute_ms: float


@dataclass(frozen=True, slots=True)
class Timings:
    """Wall time of one call in milliseconds. The stages overlap, so they add up to more than the total.

    Attributes:
        total_ms: The time of the whole call.
        preprocess_ms: The time until the last document was decoded, resized or tokenized.
        encode_query_ms: The time until the query's embedding arrived; 0 for a cross-encoder, which has none.
        score_documents_ms: The time from the first document's request to the last one's answer.
        find_spans_ms: The time that the sentences of `relevant_spans` took, after everything else.
        server: What the server counted, by model, where the call asked for `server_timings`.
    """

    total_ms: float = 0.0
    preprocess_ms: float = 0.0
    encode_query_ms: float = 0.0
    score_documents_ms: float = 0.0
    find_spans_ms: float = 0.0
    server: Mapping[str, ModelTimings] | None = None


@dataclass(frozen=True, slots=True)
class CacheUse:
    """What one call found in the client's cache; a text or image that comes twice counts once.

    Attributes:
        hits: How many texts and images of documents had their embedding in the cache; of a cross-encoder, how many
            pairs their score.
        misses: How many had to be computed.
    """

    hits: int
    misses: int


@dataclass(frozen=True, slots=True)
class ExperimentArm:
    """Whose settings answered a call.

    Attributes:
        name: The name of the gateway's experiment.
        arm: The arm of the call's user.
    """

    name: str
    arm: str


@dataclass(frozen=True, slots=True)
class RerankResponse:
    """The outcome of one call. Its length is that of `results`, and it is iterated and indexed as they are.

    Attributes:
        results: The ranked documents, best first, by their logits; equal ones keep the caller's order.
        errors: The documents that could not be ranked, in the caller's order.
        timings: Where the time went.
        model: The model that scored; None where nothing was sent.
        instruction: The instruction that the model read, or None if it reads none.
        warnings: What does not fit together: see `LycheeClient.rerank`.
        embedding_cache: What the client's embedding cache saved; None without one, or where the model's manifest does
            not tell its files from another's.
        query: What the model read of the query; None where nothing was sent.
        tokens_read: How many tokens the query and all ranked documents have, all their chunks counted.
        unselected: The rest of the ranking, where the call asked for `keep_unselected`.
        ranking_id: For `LycheeClient.feedback`, where the call's user takes part in an experiment.
        experiment: Whose settings answered, likewise; `instruction` is then the one that the call asked for.
        model_version: The version of the export that scored: the manifest's `version`; None where that has none.
    """

    results: tuple[RerankResult, ...]
    errors: tuple[DocumentError, ...]
    timings: Timings
    model: ModelIdentity | None = None
    instruction: str | None = None
    warnings: tuple[str, ...] = ()
    embedding_cache: CacheUse | None = None
    query: QueryReading | None = None
    tokens_read: int = 0
    unselected: tuple[RerankResult, ...] = ()
    ranking_id: str | None = None
    experiment: ExperimentArm | None = None
    model_version: int | None = None

    def __len__(self) -> int:
        return len(self.results)

    def __bool__(self) -> bool:
        """Return True, also without results: `if outcome.response` asks whether there is a response at all."""
        return True

    def __iter__(self) -> Iterator[RerankResult]:
        return iter(self.results)

    @overload
    def __getitem__(self, place: int) -> RerankResult: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[RerankResult, ...]: ...
    def __getitem__(self, place: int | slice) -> RerankResult | tuple[RerankResult, ...]:
        return self.results[place]


@dataclass(frozen=True, slots=True)
class ManyResult:
    """The outcome of one call of `rerank_many`.

    Attributes:
        index: Position of the call among all calls.
        response: What `rerank` would have returned, or None if it failed.
        error: What `rerank` would have raised, or None.
    """

    index: int
    response: RerankResponse | None
    error: LycheeError | None


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """One model of a server.

    Attributes:
        name: The name of the model.
        version: The version as the server names it; empty if none is loaded.
        ready: True if it answers requests.
        reason: Why it is not ready, as the server says.
    """

    name: str
    version: str
    ready: bool
    reason: str


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """What a server says about itself.

    Attributes:
        live: True if a Triton server, or a gateway, answers.
        ready: True if all its models are ready.
        version: The version of Triton; None if nothing answers, or a gateway does.
        models: All models in the server's repository. A gateway names the one that it serves.
        gateway: True if the URL is a gateway's, and no Triton's.
        replicas: The servers among which this client spreads its requests; empty where the URL has a single address.
    """

    live: bool
    ready: bool = False
    version: str | None = None
    models: tuple[ModelStatus, ...] = ()
    gateway: bool = False
    replicas: tuple[ReplicaStatus, ...] = ()


def combine(text: str | None, *images: Image) -> Input:
    """Return the query or document that has these parts, at least one of them."""
    if not images:
        assert text is not None
        return Text(text)
    image = images[0] if len(images) == 1 else Images(images)
    return image if text is None else ImageText(image, text)


def modality_of(value: Input) -> Modality:
    """Return which kind of query or document this is."""
    if isinstance(value, ImageText):
        return "image_text"
    return "image" if isinstance(value, (Image, Images)) else "text"


def text_of(value: Input) -> str | None:
    """Return the text part, or None."""
    if isinstance(value, str):
        return value
    return None if isinstance(value, (Image, Images)) else value.text


def images_of(value: Input) -> tuple[Image, ...]:
    """Return the images, in the order in which the model reads them."""
    image = value.image if isinstance(value, ImageText) else value
    if isinstance(image, Images):
        return tuple(image.images)
    return (image,) if isinstance(image, Image) else ()

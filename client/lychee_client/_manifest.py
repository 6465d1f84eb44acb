"""The server's manifest: parsed, checked, frozen. DESIGN.md, section 3.3."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from lychee_client._errors import ContractError

FORMAT_VERSION: Final = 1
PIPELINES: Final = frozenset({"dual_encoder"})
RESAMPLING: Final = frozenset({"bicubic"})

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TextSpec:
    """How the model wants its texts.

    Attributes:
        query_prefix: Put before every query.
        document_prefix: Put before every document.
        pad_token_id: Fills `input_ids` up to the bucket.
        max_tokens: Longest sequence, special tokens and prefix included.
        buckets: Ascending sequence lengths that the client pads to; the last one is at least max_tokens.
    """

    query_prefix: str
    document_prefix: str
    pad_token_id: int
    max_tokens: int
    buckets: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """How the model wants its images: shortest edge resized, then cropped centrally. All sizes in pixels."""

    height: int
    width: int
    resize_shortest_edge: int
    resample: str


@dataclass(frozen=True, slots=True)
class InstructionSpec:
    """How the model reads an instruction.

    Attributes:
        default: Used when the caller gives none.
        query_prefix: Put before every query in place of TextSpec's; holds "{instruction}" once.
    """

    default: str
    query_prefix: str


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """What scores and thresholds belong to.

    Attributes:
        model_id: Public name of the model.
        revision: Which weights.
        precision: How the weights are stored.
        artifacts: SHA-256 of every exported file, 64 hex digits, by name.
    """

    model_id: str
    revision: str
    precision: str
    artifacts: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class GoldenPair:
    """One query with one document and the reference implementation's score.

    Attributes:
        query: {"text": ...} and/or {"image_png_base64": ...}.
        document: The same.
        relevance_score: In [0, 1].
    """

    query: Mapping[str, str]
    document: Mapping[str, str]
    relevance_score: float


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything a client must know about the model that a server runs.

    Attributes:
        family: The exporter's module, for example "lychee_mini".
        pipeline: Which of the client's pipelines fits.
        model_id: Public name of the model.
        revision: Which weights.
        precision: How the weights are stored.
        embedding_dim: Length of an embedding.
        text: Text preprocessing.
        image: Image preprocessing.
        instruction: How the model reads an instruction, or None if it reads none.
        max_batch_size: Rows per request, by model name.
        artifacts: SHA-256 of every exported file, 64 hex digits, by name.
        golden_tolerance: Largest allowed absolute difference of a golden pair's score.
        golden_pairs: What `lychee doctor` replays.
    """

    family: str
    pipeline: str
    model_id: str
    revision: str
    precision: str
    embedding_dim: int
    text: TextSpec
    image: ImageSpec
    instruction: InstructionSpec | None
    max_batch_size: Mapping[str, int]
    artifacts: Mapping[str, str]
    golden_tolerance: float
    golden_pairs: tuple[GoldenPair, ...]

    @property
    def identity(self) -> ModelIdentity:
        """What scores and thresholds belong to."""
        return ModelIdentity(self.model_id, self.revision, self.precision, self.artifacts)


def parse_manifest(text: str) -> Manifest:
    """Read manifest.json. Unknown keys are ignored: they may come from a newer exporter.

    Raises:
        ContractError: It is not JSON, a key is missing or has the wrong type, or the client is too old for it.
    """
    try:
        data = json.loads(text)
    except ValueError as error:
        raise ContractError(f"the server's manifest is not JSON ({error}); export the model again") from error
    if not isinstance(data, dict):
        raise ContractError(f"the server's manifest is a {type(data).__name__}, expected an object; export again")

    version = _get(data, "format_version", int)
    if version != FORMAT_VERSION:
        raise ContractError(
            f"the server's manifest has format_version {version}, this client reads {FORMAT_VERSION}; "
            "upgrade lychee-rerank-client (or export the model again, if the version is lower)"
        )
    pipeline = _get(data, "pipeline", str)
    if pipeline not in PIPELINES:
        raise ContractError(
            f"the server's model needs the pipeline {pipeline!r}, this client has {', '.join(sorted(PIPELINES))}; "
            "upgrade lychee-rerank-client"
        )

    sizes = _get(data, "max_batch_size", dict)
    artifacts = _get(data, "artifacts", dict)
    _get(artifacts, "tokenizer", str, "artifacts.")
    golden = _get(data, "golden_pairs", dict)
    return Manifest(
        family=_get(data, "family", str),
        pipeline=pipeline,
        model_id=_get(data, "model_id", str),
        revision=_get(data, "revision", str),
        precision=_get(data, "precision", str),
        embedding_dim=_positive(data, "embedding_dim"),
        text=_parse_text(_get(data, "text", dict)),
        image=_parse_image(_get(data, "image", dict)),
        instruction=_parse_instruction(data),
        max_batch_size={name: _positive(sizes, name, "max_batch_size.") for name in sizes},
        artifacts={name: _get(artifacts, name, str, "artifacts.") for name in artifacts},
        golden_tolerance=_get(golden, "tolerance", float, "golden_pairs."),
        golden_pairs=tuple(_parse_golden_pair(pair) for pair in _get(golden, "pairs", list, "golden_pairs.")),
    )


def _parse_text(data: dict[str, Any]) -> TextSpec:
    buckets = tuple(_get(data, "buckets", list, "text."))
    max_tokens = _positive(data, "max_tokens", "text.")
    ascending = all(isinstance(size, int) for size in buckets) and list(buckets) == sorted(set(buckets))
    if not buckets or not ascending or buckets[0] < 1 or buckets[-1] < max_tokens:
        raise ContractError(
            f"the manifest's text.buckets is {list(buckets)}; expected ascending lengths that end at max_tokens "
            f"({max_tokens}) or above"
        )
    return TextSpec(
        query_prefix=_get(data, "query_prefix", str, "text."),
        document_prefix=_get(data, "document_prefix", str, "text."),
        pad_token_id=_get(data, "pad_token_id", int, "text."),
        max_tokens=max_tokens,
        buckets=buckets,
    )


def _parse_instruction(data: dict[str, Any]) -> InstructionSpec | None:
    if data.get("instruction") is None:
        return None
    spec = _get(data, "instruction", dict)
    prefix = _get(spec, "query_prefix", str, "instruction.")
    if prefix.count("{instruction}") != 1:
        raise ContractError(
            f"the manifest's instruction.query_prefix is {prefix!r}; expected {{instruction}} in it, once"
        )
    return InstructionSpec(_get(spec, "default", str, "instruction."), prefix)


def _parse_image(data: dict[str, Any]) -> ImageSpec:
    spec = ImageSpec(
        height=_positive(data, "height", "image."),
        width=_positive(data, "width", "image."),
        resize_shortest_edge=_positive(data, "resize_shortest_edge", "image."),
        resample=_get(data, "resample", str, "image."),
    )
    if max(spec.height, spec.width) > spec.resize_shortest_edge:
        raise ContractError(
            f"the manifest's image crop is {spec.height} x {spec.width}, expected at most resize_shortest_edge "
            f"({spec.resize_shortest_edge})"
        )
    if spec.resample not in RESAMPLING:
        raise ContractError(
            f"the manifest's image.resample is {spec.resample!r}, this client has {', '.join(sorted(RESAMPLING))}; "
            "upgrade lychee-rerank-client"
        )
    return spec


def _parse_golden_pair(data: object) -> GoldenPair:
    if not isinstance(data, dict):
        raise ContractError(f"a golden pair of the manifest is a {type(data).__name__}, expected an object")
    return GoldenPair(
        query=_get(data, "query", dict, "golden_pairs.pairs."),
        document=_get(data, "document", dict, "golden_pairs.pairs."),
        relevance_score=_get(data, "relevance_score", float, "golden_pairs.pairs."),
    )


def _get(data: Mapping[str, Any], key: str, kind: type[T], prefix: str = "") -> T:
    if key not in data:
        raise ContractError(f"the server's manifest has no {prefix}{key}; export the model again")
    value = data[key]
    if kind is float and isinstance(value, int):
        value = float(value)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ContractError(
            f"the manifest's {prefix}{key} is {value!r}, expected {kind.__name__}; export the model again"
        )
    return value


def _positive(data: Mapping[str, Any], key: str, prefix: str = "") -> int:
    value = _get(data, key, int, prefix)
    if value < 1:
        raise ContractError(f"the manifest's {prefix}{key} is {value}, expected at least 1; export the model again")
    return value

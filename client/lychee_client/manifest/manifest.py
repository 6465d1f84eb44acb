"""The server's manifest: parsed, checked, frozen."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias, cast, get_args

from lychee_client._errors import ContractError
from lychee_client.manifest.execution import EXACT_TOLERANCE, FLOAT32, Execution
from lychee_client.manifest.fields import get_ascending, get_positive, get_value
from lychee_client.manifest.image_spec import ImageSpec, PatchSpec, parse_image_spec
from lychee_client.manifest.prompt_spec import PromptSpec, parse_prompt_spec

FORMAT_VERSION: Final = 2

Pipeline: TypeAlias = Literal["dual_encoder", "cross_encoder"]
PIPELINES: Final[tuple[str, ...]] = get_args(Pipeline)


@dataclass(frozen=True, slots=True)
class TextSpec:
    """How the model wants its texts.

    Attributes:
        query_prefix: What is put before every query; empty for a cross-encoder, whose prompt says where a query stands.
        document_prefix: What is put before every document; empty for a cross-encoder too.
        pad_token_id: The token that fills `input_ids` up to the bucket.
        max_tokens: The length of the longest sequence in tokens, special tokens and prefix included.
        buckets: The sequence lengths that the client pads to, ascending; the last one is at least max_tokens.
    """

    query_prefix: str
    document_prefix: str
    pad_token_id: int
    max_tokens: int
    buckets: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class InstructionSpec:
    """How the model reads an instruction.

    Attributes:
        default: The instruction that is used when the caller gives none.
        query_prefix: What is put before every query in place of TextSpec's prefix; it holds "{instruction}" once. None
            for a cross-encoder, whose prompt has a place for the instruction.
    """

    default: str
    query_prefix: str | None


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """What scores and thresholds belong to.

    Attributes:
        model_id: The public name of the model.
        revision: The revision of the weights.
        precision: How the weights are stored.
        artifacts: The SHA-256 of every exported file, 64 hex digits, by name.
        execution: The precision in which the server computes, by encoder, where the server says so.
    """

    model_id: str
    revision: str
    precision: str
    artifacts: Mapping[str, str]
    execution: Mapping[str, str] = field(default_factory=dict)

    @property
    def precision_text(self) -> str:
        """How the weights are stored, and which encoders compute in less than float32: "fp32 (text_encoder: bf16)"."""
        others = [f"{name}: {each}" for name, each in sorted(self.execution.items()) if each != FLOAT32]
        return f"{self.precision} ({', '.join(others)})" if others else self.precision


@dataclass(frozen=True, slots=True)
class GoldenPair:
    """One query with one document and the reference implementation's score.

    Attributes:
        query: An object with the key "text", "image_png_base64" or both.
        document: An object with the same keys.
        relevance_score: The reference implementation's score, in [0, 1].
    """

    query: Mapping[str, str]
    document: Mapping[str, str]
    relevance_score: float


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything a client must know about the model that a server runs.

    Attributes:
        family: The exporter's module, for example "lychee_mini".
        pipeline: The name of the client's pipeline that fits.
        model_id: The public name of the model.
        revision: The revision of the weights.
        precision: How the weights are stored.
        embedding_dim: The length of an embedding; None for a cross-encoder.
        text: How the model wants its texts.
        prompt: How query and document are put together; None for a dual encoder.
        image: How the model wants its images.
        max_img_size: The most pixels of one image that the export admits, as the side of a square; None where every
            image has the same size.
        instruction: How the model reads an instruction, or None if it reads none.
        max_batch_size: The most rows of one request, by model name.
        artifacts: The SHA-256 of every exported file, 64 hex digits, by name.
        golden_tolerance: The largest absolute difference allowed of a golden pair's score where all is computed in
            float32.
        golden_pairs: The golden pairs, which `lychee doctor` replays.
        flash_attn: Whether attention was exported as one fused operator.
        execution: What executes each encoder. Not from the manifest itself: the server's configurations say it.
    """

    family: str
    pipeline: Pipeline
    model_id: str
    revision: str
    precision: str
    embedding_dim: int | None
    text: TextSpec
    prompt: PromptSpec | None
    image: ImageSpec
    max_img_size: int | None
    instruction: InstructionSpec | None
    max_batch_size: Mapping[str, int]
    artifacts: Mapping[str, str]
    golden_tolerance: float
    golden_pairs: tuple[GoldenPair, ...]
    flash_attn: bool = False
    execution: Mapping[str, Execution] = field(default_factory=dict)

    @property
    def identity(self) -> ModelIdentity:
        """What scores and thresholds belong to."""
        told = {name: each.precision for name, each in self.execution.items() if each.precision is not None}
        return ModelIdentity(self.model_id, self.revision, self.precision, self.artifacts, told)

    @property
    def accepted_error(self) -> float:
        """The largest absolute difference allowed of a golden pair's score, by what executes the encoders.

        In float32 it is the export's own; otherwise the budget within which the server chose what executes them, and on
        top of what weights of fewer bits cost.
        """
        budgets = [each.error_budget for each in self.execution.values() if each.precision != FLOAT32]
        if not budgets:
            return self.golden_tolerance
        lossy = self.golden_tolerance if self.golden_tolerance > EXACT_TOLERANCE else 0.0
        return max(lossy + max(budgets), self.golden_tolerance)


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

    version = get_value(data, "format_version", int)
    if version != FORMAT_VERSION:
        raise ContractError(
            f"the server's manifest has format_version {version}, this client reads {FORMAT_VERSION}; "
            "upgrade lychee-rerank-client (or export the model again, if the version is lower)"
        )
    pipeline = get_value(data, "pipeline", str)
    if pipeline not in PIPELINES:
        raise ContractError(
            f"the server's model needs the pipeline {pipeline!r}, this client has {', '.join(PIPELINES)}; "
            "upgrade lychee-rerank-client"
        )

    sizes = get_value(data, "max_batch_size", dict)
    artifacts = get_value(data, "artifacts", dict)
    get_value(artifacts, "tokenizer", str, "artifacts.")
    golden = get_value(data, "golden_pairs", dict)
    is_dual = pipeline == "dual_encoder"
    prompt = None if is_dual else parse_prompt_spec(get_value(data, "prompt", dict))
    image = parse_image_spec(get_value(data, "image", dict))
    _check_images(image, prompt)
    return Manifest(
        family=get_value(data, "family", str),
        pipeline=cast(Pipeline, pipeline),
        model_id=get_value(data, "model_id", str),
        revision=get_value(data, "revision", str),
        precision=get_value(data, "precision", str),
        embedding_dim=get_positive(data, "embedding_dim") if is_dual else None,
        text=_parse_text(get_value(data, "text", dict), is_dual),
        prompt=prompt,
        image=image,
        max_img_size=get_positive(data, "max_img_size") if isinstance(image, PatchSpec) else None,
        instruction=_parse_instruction(data, prompt),
        max_batch_size={name: get_positive(sizes, name, "max_batch_size.") for name in sizes},
        artifacts={name: get_value(artifacts, name, str, "artifacts.") for name in artifacts},
        golden_tolerance=get_value(golden, "tolerance", float, "golden_pairs."),
        golden_pairs=tuple(_parse_golden_pair(pair) for pair in get_value(golden, "pairs", list, "golden_pairs.")),
        flash_attn=data.get("flash_attn") is True,
    )


def _check_images(image: ImageSpec, prompt: PromptSpec | None) -> None:
    """Refuse images that have no place: only a prompt can say where an image's tokens stand.

    Raises:
        ContractError: The image is of a kind that does not fit the pipeline or the prompt.
    """
    if isinstance(image, PatchSpec) != bool(prompt and prompt.image):
        expected = "expected" if isinstance(image, PatchSpec) else "expected no"
        raise ContractError(
            f"the manifest's images are a {type(image).__name__}; {expected} prompt.image; export the model again"
        )


def _parse_text(data: dict[str, Any], is_dual: bool) -> TextSpec:
    buckets = get_ascending(data, "buckets", "text.")
    max_tokens = get_positive(data, "max_tokens", "text.")
    if buckets[-1] < max_tokens:
        raise ContractError(
            f"the manifest's text.buckets is {list(buckets)}; expected lengths that end at max_tokens "
            f"({max_tokens}) or above"
        )
    return TextSpec(
        query_prefix=get_value(data, "query_prefix", str, "text.") if is_dual else "",
        document_prefix=get_value(data, "document_prefix", str, "text.") if is_dual else "",
        pad_token_id=get_value(data, "pad_token_id", int, "text."),
        max_tokens=max_tokens,
        buckets=buckets,
    )


def _parse_instruction(data: dict[str, Any], prompt: PromptSpec | None) -> InstructionSpec | None:
    has_spec = data.get("instruction") is not None
    if prompt is not None and prompt.has_instruction != has_spec:
        raise ContractError(
            f"the manifest has {'an' if has_spec else 'no'} instruction, its prompt.template "
            f"{'a' if prompt.has_instruction else 'no'} place for one; expected both or neither; export the model again"
        )
    if not has_spec:
        return None
    spec = get_value(data, "instruction", dict)
    default = get_value(spec, "default", str, "instruction.")
    if prompt is not None:
        return InstructionSpec(default, None)
    prefix = get_value(spec, "query_prefix", str, "instruction.")
    if prefix.count("{instruction}") != 1:
        raise ContractError(
            f"the manifest's instruction.query_prefix is {prefix!r}; expected {{instruction}} in it, once"
        )
    return InstructionSpec(default, prefix)


def _parse_golden_pair(data: object) -> GoldenPair:
    if not isinstance(data, dict):
        raise ContractError(f"a golden pair of the manifest is a {type(data).__name__}, expected an object")
    return GoldenPair(
        query=get_value(data, "query", dict, "golden_pairs.pairs."),
        document=get_value(data, "document", dict, "golden_pairs.pairs."),
        relevance_score=get_value(data, "relevance_score", float, "golden_pairs.pairs."),
    )

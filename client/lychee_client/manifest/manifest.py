"""The manifest: what an export says of itself. Every field is declared here, for those who write it and who read it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Annotated, Final, Literal, TypeAlias

import msgspec
from msgspec import Meta, Struct

from lychee_client._errors import ConfigurationError, ContractError
from lychee_client.json_object import parse_object
from lychee_client.manifest.execution import EXACT_TOLERANCE, FLOAT32, Execution
from lychee_client.manifest.fields import Positive, Score, Sizes, TokenId, check_ascending
from lychee_client.manifest.image_spec import ImageSpec, TokenImageSpec
from lychee_client.manifest.late_interaction_spec import AnyLateInteractionSpec, PageInteractionSpec
from lychee_client.manifest.prompt_spec import PromptSpec

FORMAT_VERSION: Final = 2

Pipeline: TypeAlias = Literal["dual_encoder", "cross_encoder", "late_interaction"]

_SHA256: Final = re.compile("[0-9a-f]{64}")


class TextSpec(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How the model wants its texts.

    Attributes:
        query_prefix: What is put before every query; None for a cross-encoder, whose prompt says where a query stands.
        document_prefix: What is put before every document; None for a cross-encoder too.
        pad_token_id: The token that fills `input_ids` up to the bucket.
        max_tokens: The length of the longest sequence in tokens, special tokens and prefix included.
        buckets: The sequence lengths that the client pads to, ascending; the last one is at least max_tokens.
    """

    query_prefix: str | None = None
    document_prefix: str | None = None
    pad_token_id: TokenId
    max_tokens: Positive
    buckets: Sizes

    def __post_init__(self) -> None:
        check_ascending("text.buckets", self.buckets)
        if self.buckets[-1] < self.max_tokens:
            raise ValueError(
                f"text.buckets is {list(self.buckets)}; expected lengths that end at text.max_tokens "
                f"({self.max_tokens}) or above"
            )


class InstructionSpec(Struct, frozen=True, omit_defaults=True):
    """How the model reads an instruction.

    Attributes:
        default: The instruction that is used when the caller gives none.
        query_prefix: What is put before every query in place of TextSpec's prefix; it holds "{instruction}" once. None
            for a cross-encoder, whose prompt has a place for the instruction.
    """

    default: str
    query_prefix: str | None = None

    def __post_init__(self) -> None:
        if self.query_prefix is not None and self.query_prefix.count("{instruction}") != 1:
            raise ValueError(f"instruction.query_prefix is {self.query_prefix!r}; expected {{instruction}} in it, once")


class CheckpointLimits(Struct, frozen=True, omit_defaults=True):
    """What the checkpoint itself reads, of which an export may admit less.

    Attributes:
        max_tokens: The length of the longest sequence in tokens.
        max_pixels: The most pixels of one image after resizing; None for a model that reads no images.
    """

    max_tokens: Positive
    max_pixels: Positive | None = None


class ModelSpec(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A model, and how it wants its queries and documents: what the export knows before it has made anything.

    Attributes:
        family: The exporter's module, for example "lychee_mini".
        pipeline: The name of the client's pipeline that fits.
        model_id: The public name of the model.
        revision: The revision of the weights.
        embedding_dim: The length of an embedding, with late interaction of one token's; None for a cross-encoder.
        text: How the model wants its texts.
        prompt: How query and document are put together; None for all but a cross-encoder.
        late_interaction: How texts and pages become many vectors each; None for all but late interaction.
        image: How the model wants its images; None where it reads texts alone.
        max_img_size: The most pixels of one image that the export admits, as the side of a square; None where every
            image has the same size.
        instruction: How the model reads an instruction, or None if it reads none.
        checkpoint_limits: What the checkpoint itself reads; None where every image has the same size, and in what older
            exporters wrote.
    """

    family: str
    pipeline: Pipeline
    model_id: str
    revision: str
    embedding_dim: Positive | None = None
    text: TextSpec
    prompt: PromptSpec | None = None
    late_interaction: AnyLateInteractionSpec | None = None
    image: ImageSpec | None = None
    max_img_size: Positive | None = None
    instruction: InstructionSpec | None = None
    checkpoint_limits: CheckpointLimits | None = None

    def __post_init__(self) -> None:
        needed: dict[str, object] = {"prompt": self.prompt}
        self._check_pipeline()
        if self.pipeline != "cross_encoder":
            needed = {
                "embedding_dim": self.embedding_dim,
                "text.query_prefix": self.text.query_prefix,
                "text.document_prefix": self.text.document_prefix,
            }
            if self.pipeline == "dual_encoder":
                needed["image"] = self.image
            else:
                needed["late_interaction"] = self.late_interaction
            if self.instruction is not None:
                needed["instruction.query_prefix"] = self.instruction.query_prefix
        for name, value in needed.items():
            if value is None:
                raise ValueError(f"the key {name} is missing; expected it with the pipeline {self.pipeline}")
        self._check_prompt()
        if isinstance(self.image, TokenImageSpec) and self.max_img_size is None:
            raise ValueError("the key max_img_size is missing; expected it with images of any size")

    def _check_pipeline(self) -> None:
        """Refuse what belongs to another pipeline."""
        if self.prompt is not None and self.pipeline != "cross_encoder":
            raise ValueError(f"there is a prompt; expected none with the pipeline {self.pipeline}")
        late = self.late_interaction
        if late is None:
            return
        if self.pipeline != "late_interaction":
            raise ValueError(f"there is late_interaction; expected none with the pipeline {self.pipeline}")
        if (self.image is not None) != isinstance(late, PageInteractionSpec):
            raise ValueError(
                f"there is {'an' if self.image is not None else 'no'} image and late_interaction is a "
                f"{type(late).__name__}; expected image where late_interaction.page is, and nowhere else"
            )
        if late.query_tokens > self.text.max_tokens:
            raise ValueError(
                f"late_interaction.query_tokens is {late.query_tokens}; expected at most text.max_tokens "
                f"({self.text.max_tokens})"
            )

    def _check_prompt(self) -> None:
        """Refuse images and instructions that have no place: only a prompt can say where an image's tokens stand."""
        prompt, has_tokens = self.prompt, isinstance(self.image, TokenImageSpec)
        if prompt is not None and self.image is None and {*prompt.queries, *prompt.documents} != {"text"}:
            raise ValueError(
                f"the key image is missing; expected it where prompt.queries is {list(prompt.queries)} and "
                f"prompt.documents is {list(prompt.documents)}"
            )
        has_page = isinstance(self.late_interaction, PageInteractionSpec)
        if has_tokens != (bool(prompt and prompt.image) or has_page):
            expected = "expected" if has_tokens else "expected no"
            raise ValueError(
                f"the images are a {type(self.image).__name__}; {expected} prompt.image or late_interaction.page"
            )
        has_instruction = self.instruction is not None
        if prompt is not None and prompt.has_instruction != has_instruction:
            raise ValueError(
                f"there is {'an' if has_instruction else 'no'} instruction, its prompt.template has "
                f"{'a' if prompt.has_instruction else 'no'} place for one; expected both or neither"
            )


class ModelIdentity(Struct, frozen=True, forbid_unknown_fields=True):
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
    execution: Mapping[str, str] = {}

    @property
    def precision_text(self) -> str:
        """How the weights are stored, and which encoders compute in less than float32: "fp32 (text_encoder: bf16)"."""
        others = [f"{name}: {each}" for name, each in sorted(self.execution.items()) if each != FLOAT32]
        return f"{self.precision} ({', '.join(others)})" if others else self.precision


class GoldenInput(Struct, frozen=True, omit_defaults=True):
    """A query or a document of a golden pair: a text, an image as a PNG file, or both."""

    text: str | None = None
    image_png: bytes | None = msgspec.field(default=None, name="image_png_base64")

    def __post_init__(self) -> None:
        if self.text is None and self.image_png is None:
            raise ValueError("a part of golden_pairs.pairs is empty; expected text or image_png_base64")


class GoldenPair(Struct, frozen=True):
    """One query with one document and the reference implementation's score.

    Attributes:
        query: The query.
        document: The document.
        relevance_score: The reference implementation's score, in [0, 1].
    """

    query: GoldenInput
    document: GoldenInput
    relevance_score: Score


class GoldenPairs(Struct, frozen=True):
    """What `lychee doctor` replays.

    Attributes:
        tolerance: The largest absolute difference allowed of a pair's score where all is computed in float32.
        pairs: The pairs.
    """

    tolerance: Annotated[float, Meta(ge=0)]
    pairs: tuple[GoldenPair, ...]


class Manifest(ModelSpec, frozen=True, kw_only=True, tag_field="format_version", tag=FORMAT_VERSION):
    """Everything a client must know about the model that a server runs.

    Attributes:
        precision: How the weights are stored.
        flash_attn: Whether attention was exported as one fused operator; None in what older exporters wrote, which had
            no such operator.
        created_by: The versions of everything that the exported files depend on, by the package's name.
        max_batch_size: The most rows of one request, by model name.
        artifacts: The SHA-256 of every exported file, 64 hex digits, by name.
        golden_pairs: The golden pairs.
        version: The number under which a server has every model of the export, made of what decides a score: the same
            for the same export, wherever it was made. None in what older exporters wrote.
        execution: What executes each encoder. Not from the manifest itself: the server's configurations say it.
    """

    precision: str
    flash_attn: bool | None = None
    created_by: Mapping[str, str] = {}
    max_batch_size: Mapping[str, Positive]
    artifacts: Mapping[str, str]
    golden_pairs: GoldenPairs
    version: Positive | None = None
    execution: Mapping[str, Execution] = {}

    def __post_init__(self) -> None:
        super().__post_init__()
        tokenizer = self.artifacts.get("tokenizer")
        if tokenizer is None or not _SHA256.fullmatch(tokenizer):
            raise ValueError(f"artifacts.tokenizer is {tokenizer!r}; expected 64 hex digits")

    @property
    def model_version(self) -> str:
        """The version that requests to the models name; empty where the export has none."""
        return "" if self.version is None else str(self.version)

    @property
    def identity(self) -> ModelIdentity:
        """What scores and thresholds belong to."""
        told = {name: each.precision for name, each in self.execution.items() if each.precision is not None}
        return ModelIdentity(self.model_id, self.revision, self.precision, self.artifacts, told)

    @property
    def asked_models(self) -> tuple[str, ...]:
        """The models that this client asks: a cross-encoder's ensembles, of the others encoders and heads.

        Together they run every model that has a process of its own.
        """
        ensembles = self.prompt is not None
        return tuple(name for name in self.max_batch_size if name.startswith("rerank_") == ensembles)

    @property
    def accepted_error(self) -> float:
        """The largest absolute difference allowed of a golden pair's score, by what executes the encoders.

        In float32 it is the export's own; otherwise the budget within which the server chose what executes them, and on
        top of what weights of fewer bits cost.
        """
        tolerance = self.golden_pairs.tolerance
        budgets = [each.error_budget for each in self.execution.values() if each.precision != FLOAT32]
        if not budgets:
            return tolerance
        return max((tolerance if tolerance > EXACT_TOLERANCE else 0.0) + max(budgets), tolerance)


def parse_manifest(text: str) -> Manifest:
    """Read manifest.json. Unknown keys are ignored: they may come from a newer exporter.

    Raises:
        ContractError: It is not JSON, a key is missing or has a value that cannot be, or the client is too old for it.
    """
    try:
        return parse_object(text, Manifest)
    except ConfigurationError as error:
        raise ContractError(
            f"the server's manifest is not one that this client reads: {error}; upgrade lychee-rerank-client if a "
            "newer exporter wrote it, otherwise export the model again"
        ) from error


def write_manifest(manifest: Manifest) -> str:
    """Return the content of manifest.json, which `parse_manifest` reads.

    Raises:
        ContractError: It could not be read: a field has a value that cannot be.
    """
    text = json.dumps(msgspec.to_builtins(manifest), ensure_ascii=False, indent=1)
    parse_manifest(text)
    return text

"""Cross-encoders: query and document are read together, as one prompt with the images of both."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from lychee_client._embedding_cache import EmbeddingCache
from lychee_client._errors import InvalidInputError
from lychee_client._operations import DECODE, TOKENIZE, Begin, Handle, Wait, in_thread
from lychee_client._pipelines.image_tensors import find_patch_bucket, pack_images, without_images
from lychee_client._pipelines.lanes import LANES, Lane
from lychee_client._pipelines.pair_scores import PairScores, can_cache_scores
from lychee_client._pipelines.scoring import PROBE_TEXT, Outcome, Preparation, Scoring, make_probe_image
from lychee_client.manifest.image_spec import ImageSpec, PatchSpec, TokenImageSpec
from lychee_client.manifest.manifest import Manifest
from lychee_client.manifest.prompt_spec import Modality
from lychee_client.preprocessing.image import Image, PreparedImage
from lychee_client.preprocessing.prompt import Frame, Part, PromptProcessor
from lychee_client.preprocessing.text import TokenizedText
from lychee_client.preprocessing.windows import FindSurplus, Room
from lychee_client.transports.base import Tensor
from lychee_client.types import (
    CacheUse,
    Input,
    QueryReading,
    Timings,
    combine,
    images_of,
    modality_of,
    text_of,
)

TEXT_ENSEMBLE: Final = "rerank_text"
IMAGE_ENSEMBLE: Final = "rerank_image"
IMAGE_READERS: Final = (
    "Images are read by lychee-rerank-mm and its kin (Qwen-VL), Llama Nemotron VL, ColQwen2, ColPali, CLIP, SigLIP and "
    "BLIP: serve one"
)
_NAMES: Final[dict[str, str]] = {"text": "texts", "image": "images", "image_text": "images with text"}


class CrossEncoder:
    """The calls to one model.

    Args:
        manifest: The manifest of the model.
        prompts: Turns pairs into tensors; it has the model's tokenizer.
        image_spec: How to prepare images; None for a model that reads none.
        cache: Keeps the scores of pairs, if the model passes `can_cache_scores`. None keeps nothing.
    """

    def __init__(
        self,
        manifest: Manifest,
        prompts: PromptProcessor,
        image_spec: ImageSpec | None,
        cache: EmbeddingCache | None = None,
    ) -> None:
        assert manifest.prompt is not None
        self._manifest = manifest
        self._prompt_spec = manifest.prompt
        self._prompts = prompts
        self._image_spec = image_spec
        self._known = None
        if cache is not None and can_cache_scores(manifest):
            self._known = PairScores(manifest, image_spec, cache)

    async def rerank(
        self,
        query: Input,
        documents: Sequence[Input],
        instruction: str | None = None,
        lane: Lane = LANES["interactive"],
        earlier: Outcome | None = None,
    ) -> Outcome:
        """See Pipeline."""
        started = preprocessed = time.perf_counter()
        check_modality("query", modality_of(query), self._prompt_spec.queries, self._manifest)
        self._check_images("the query has", len(images_of(query)))

        def make_text_tensors(indexes: Sequence[int]) -> dict[str, Tensor]:
            tensors = self._prompts.to_tensors([scoring.tokens[index] for index in indexes])
            return {**tensors, **without_images(self._image_spec, len(indexes))}

        scoring = Scoring(self._manifest, lane, make_text_tensors)
        valid = scoring.check_documents(documents, partial(self._check_document, query))
        if valid:
            scoring.outcome.query = QueryReading(modality_of(query))  # too long a query is refused, never cut
        keys: dict[int, bytes] = {}
        if self._known is not None:
            found = await in_thread(partial(self._known.look_up, query, documents, valid, instruction))
            for index, error in found.errors.items():
                scoring.outcome.fail(index, error)
            scoring.outcome.scores.update(found.scores)
            keys = {index: key for index, key in found.keys.items() if index not in found.scores}
            scoring.outcome.embedding_cache = CacheUse(len(found.scores), len(set(keys.values())))
            valid = list(keys)
        if not valid:
            finished = time.perf_counter()
            scoring.outcome.timings = Timings(1e3 * (finished - started), 1e3 * (finished - started))
            return scoring.outcome
        query_images = await self._prepare_query(query)
        part = Part(text_of(query), _count_tokens(query_images))
        frame = await in_thread(partial(self._prompts.make_frame, part, instruction), name=TOKENIZE)

        pictured = [index for index in valid if query_images or images_of(documents[index])]
        plain = sorted(set(valid) - set(pictured))
        parts = [Part(text_of(documents[index])) for index in plain]
        tokenizing = await Begin(partial(self._prompts.tokenize, frame, parts), name=TOKENIZE)
        preparation = Preparation(pictured, partial(self._prepare_pair, frame, documents), scoring.outcome.fail)
        await preparation.begin()
        tokenized = await Wait(tokenizing)
        for index, tokens in zip(plain, tokenized, strict=True):
            if isinstance(tokens, InvalidInputError):
                scoring.outcome.fail(index, tokens)
            else:
                scoring.tokens[index] = tokens
        sending = preprocessed = time.perf_counter()
        await scoring.send_texts(TEXT_ENSEMBLE, list(scoring.tokens))

        async def send_pair(index: int, pair: tuple[TokenizedText, list[PreparedImage]]) -> None:
            """Send one pair alone: its images have another shape than the next one's."""
            nonlocal preprocessed
            preprocessed = time.perf_counter()
            tokens, images = pair
            ordered = [*query_images, *images] if self._prompt_spec.is_query_first else [*images, *query_images]
            assert self._image_spec is not None  # a pair with an image has passed `check_modality`
            tensors = pack_images(ordered, self._image_spec)
            scoring.tokens[index] = tokens
            if images:
                scoring.images[index] = replace(images[0].sizes, tokens=sum(_count_tokens(images)) or None)
            tensors |= self._prompts.to_tensors([tokens])
            await scoring.send(IMAGE_ENSEMBLE, modality_of(documents[index]), tensors, [index])

        await preparation.for_each(send_pair)
        await scoring.read()
        if self._known is not None:
            new = {index: scoring.outcome.scores[index] for index in keys if index in scoring.outcome.scores}
            await in_thread(partial(self._known.store, query, documents, instruction, keys, new))
        finished = time.perf_counter()
        scoring.outcome.timings = Timings(
            total_ms=1e3 * (finished - started),
            preprocess_ms=1e3 * (preprocessed - started),
            score_documents_ms=1e3 * (finished - sending),
        )
        return scoring.outcome

    def find_tokens(self, text: str) -> Sequence[int]:
        """See Pipeline."""
        return self._prompts.find_tokens(text)

    def find_room(self, query: Input, instruction: str | None) -> Room:
        """See Pipeline."""
        check_modality("query", modality_of(query), self._prompt_spec.queries, self._manifest)
        frame = self._prompts.make_frame(Part(text_of(query), self._find_image_tokens(images_of(query))), instruction)

        def beside(images: Sequence[Image]) -> FindSurplus:
            return partial(self._prompts.find_surplus, frame, self._find_image_tokens(images))

        return Room(0, beside)  # too long a query is refused, never cut

    def _find_image_tokens(self, images: Sequence[Image]) -> list[int]:
        spec = self._image_spec
        return [image.count_tokens(spec) for image in images] if isinstance(spec, TokenImageSpec) else []

    async def probe(self, model_name: str) -> None:
        """See Pipeline."""
        spec, instruction = self._prompt_spec, self._manifest.instruction
        query: Input = PROBE_TEXT if "text" in spec.queries else make_probe_image()
        kind = "text" if model_name == TEXT_ENSEMBLE else next(kind for kind in spec.documents if kind != "text")
        images = [] if kind == "text" else [make_probe_image()]
        document = combine(None if kind == "image" else PROBE_TEXT, *images)
        outcome = await self.rerank(query, [document], None if instruction is None else instruction.default)
        for error in outcome.errors.values():
            raise error

    def _check_document(self, query: Input, document: Input) -> None:
        """Refuse what the model does not read.

        Raises:
            InvalidInputError: The document is of another kind, or has too many images beside the query's.
        """
        check_modality("document", modality_of(document), self._prompt_spec.documents, self._manifest)
        self._check_images("query and document have", len(images_of(query)) + len(images_of(document)))

    def _check_images(self, what: str, count: int) -> None:
        """Refuse more images than a pair may have.

        Raises:
            InvalidInputError: There are more.
        """
        has_patches = isinstance(self._image_spec, PatchSpec)
        limit = self._image_spec.max_images if isinstance(self._image_spec, PatchSpec) else 1
        if count > limit:
            advice = f", or export the model with --max-images {count}" if has_patches else ""
            raise InvalidInputError(
                f"{what} {count} images, {self._manifest.model_id} reads at most {limit} per pair; send fewer{advice}"
            )

    async def _prepare_query(self, query: Input) -> list[PreparedImage]:
        images, spec = images_of(query), self._image_spec
        if not images or spec is None:
            return []
        prepared = await in_thread(partial(_prepare, images, spec), partial(_weigh, images, spec), DECODE)
        if isinstance(spec, PatchSpec):
            find_patch_bucket(prepared, spec)  # images that are too large concern the whole call
        return prepared

    async def _prepare_pair(
        self, frame: Frame, documents: Sequence[Input], index: int
    ) -> Handle[tuple[TokenizedText, list[PreparedImage]]] | tuple[TokenizedText, list[PreparedImage]]:
        images, spec = images_of(documents[index]), self._image_spec
        weigh = partial(_weigh, images, spec) if images and spec is not None else None
        return await Begin(partial(self._read_document, frame, documents[index]), weigh, DECODE if images else TOKENIZE)

    def _read_document(self, frame: Frame, document: Input) -> tuple[TokenizedText, list[PreparedImage]]:
        """Prepare a document's images, then the prompt, which has as many tokens for them as they need.

        Raises:
            InvalidInputError: An image cannot be used, or the document does not fit into the prompt.
        """
        images, spec = images_of(document), self._image_spec
        prepared = [] if spec is None else _prepare(images, spec)
        (tokens,) = self._prompts.tokenize(frame, [Part(text_of(document), _count_tokens(prepared))])
        if isinstance(tokens, InvalidInputError):
            raise tokens
        return tokens, prepared


def _prepare(images: Sequence[Image], spec: ImageSpec) -> list[PreparedImage]:
    return [image.prepare(spec) for image in images]


def _weigh(images: Sequence[Image], spec: ImageSpec) -> int:
    """Return how many bytes it takes to prepare images, one after the other."""
    return max(image.weigh(spec) for image in images)


def _count_tokens(images: Sequence[PreparedImage]) -> list[int]:
    """Return how many tokens of the prompt stand for each image; empty where they are not in the prompt."""
    return [image.tokens for image in images if image.tokens is not None]


def check_modality(what: str, modality: Modality, known: Sequence[str], manifest: Manifest) -> None:
    """Refuse what the model does not read.

    Raises:
        InvalidInputError: The modality is not among the known ones.
    """
    if modality not in known:
        expected = " or ".join(_NAMES[name] for name in known)
        advice = f". {IMAGE_READERS}" if manifest.image is None else ""
        raise InvalidInputError(
            f"the {what} is of the kind {_NAMES[modality]}; {manifest.model_id} reads only {expected} as a "
            f"{what}{advice}"
        )

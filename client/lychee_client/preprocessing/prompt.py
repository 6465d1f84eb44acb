"""Prompts: a query and a document in a model's template, tokenized as a whole, cut to what the model reads."""

from __future__ import annotations

import re
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from lychee_client._errors import ContractError, InvalidInputError
from lychee_client.manifest.manifest import TextSpec
from lychee_client.manifest.prompt_spec import IMAGES_PLACE, PromptSpec
from lychee_client.preprocessing.special_tokens import SpecialTokens
from lychee_client.preprocessing.text import (
    MAX_CHARACTERS,
    TokenizedText,
    batches,
    find_bucket,
    load_tokenizer,
    pad_texts,
)

if TYPE_CHECKING:
    from tokenizers import Encoding

# Of a longer text only so much is tokenized at first; the rest too, if that leaves room. Texts of books and web pages
# have two to five.
CHARACTERS_PER_TOKEN: Final = 8
# After so many cuts that left a text too long, each further one takes twice as much.
PATIENT_CUTS: Final = 3
_PLACES = re.compile(r"(\{images\}|\{query\}|\{document\}|\{instruction\})")


@dataclass(frozen=True, slots=True)
class Part:
    """A query or a document.

    Attributes:
        text: The text, which has passed `check_text`, or None.
        image_tokens: How many tokens stand for each image; empty where images are not in the prompt.
    """

    text: str | None
    image_tokens: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Frame:
    """A prompt that only lacks its document.

    Attributes:
        before: The text before the document; the whole prompt, where the template has no place for a document.
        after: The text after the document.
        reads_document: Whether the template has a place for a document.
        num_structural: How many special tokens the prompt has, those that the tokenizer adds included.
        has_images_first: Whether the document's images stand before the whole prompt.
    """

    before: str
    after: str
    reads_document: bool
    num_structural: int
    has_images_first: bool = False

    @property
    def ends_with_document(self) -> bool:
        """Whether nothing but what the tokenizer adds follows the document."""
        return self.reads_document and not self.after

    def fill(self, image: str, text: str) -> str:
        """Return the whole prompt with what stands for the document's images, and the document's text."""
        if not self.reads_document:
            return self.before
        return (image + self.before if self.has_images_first else self.before + image) + text + self.after


@dataclass(slots=True)
class _Rendered:
    """A part as it stands in the prompt: its images' tokens, then so many characters of its text."""

    image: str
    text: str
    num_structural: int
    is_cut: bool
    kept: int

    @property
    def content(self) -> str:
        return self.image + self.text[: self.kept]


class PromptProcessor:
    """Turns pairs of query and document into `input_ids` and `attention_mask`.

    Template, query and document are one string when they are tokenized, as by the reference: a tokenizer may merge
    characters across their borders. So that a text cannot change the prompt, special tokens that it spells out are
    broken up; see `SpecialTokens`.

    Too long a document loses its end. Where the template goes on after it, the text is cut and tokenized again. Where
    it ends with it, the last tokens of the document are left out, as tokenizers cut the second text of a pair.

    Args:
        tokenizer_json: The content of a `tokenizers` file.
        text: The manifest's specification of texts.
        prompt: The manifest's specification of the prompt.

    Raises:
        ContractError: The tokenizer cannot be read, or does not fit the prompt.
    """

    def __init__(self, tokenizer_json: str, text: TextSpec, prompt: PromptSpec) -> None:
        self._tokenizer = load_tokenizer(tokenizer_json)
        self._text = text
        self._prompt = prompt
        self._limit = text.max_tokens - len(prompt.suffix_token_ids)
        self._special = SpecialTokens(self._tokenizer, prompt.template + prompt.image)
        reserved = self._special.by_id
        if prompt.image_token and prompt.image_token not in reserved.values():
            raise ContractError(
                f"the server's tokenizer has no token {prompt.image_token!r}, which stands for an image in the "
                "manifest's prompt; export the model again"
            )
        template = self._tokenizer.encode(_PLACES.sub("", prompt.template)).ids
        image = self._tokenizer.encode(prompt.image, add_special_tokens=False).ids
        # Not all special tokens: a rare character of a text may become the one for the unknown.
        self._structural_ids = np.array(sorted(reserved.keys() & {*template, *image}), np.int64)
        self._num_template = self._count_structural(template)
        self._num_image = self._count_structural(image)

    def make_frame(self, query: Part, instruction: str | None) -> Frame:
        """Put query and instruction into the template.

        Args:
            query: The query; it has at least one part.
            instruction: The instruction, for which the template has a place; ignored where it has none.

        Raises:
            InvalidInputError: They leave no room for a document, or hold what the tokenizer reads as a special token.
        """
        rendered = self._render(query)
        if rendered.is_cut or len(instruction or "") > MAX_CHARACTERS:
            raise InvalidInputError(
                f"the query has {len(query.text or '')} characters and the instruction {len(instruction or '')}, the "
                f"limit is {MAX_CHARACTERS}; shorten them"
            )
        contents = {
            "{query}": rendered.content,
            "{instruction}": self._special.break_up(instruction or ""),
        }
        before, place, after = self._prompt.template.removeprefix(IMAGES_PLACE).partition("{document}")
        before, after = (
            "".join(contents.get(piece, piece) for piece in _PLACES.split(side)) for side in (before, after)
        )
        num_structural = self._num_template + rendered.num_structural
        frame = Frame(before, after, bool(place), num_structural, self._prompt.has_images_first)
        ids = self._tokenizer.encode(frame.fill("", "")).ids
        if len(ids) + frame.reads_document > self._limit:
            raise InvalidInputError(
                f"the query takes {len(ids) + len(self._prompt.suffix_token_ids)} tokens with the model's template, "
                f"its images and the instruction; the model reads {self._text.max_tokens}, and some must be left for "
                "the document; shorten the query or the instruction, or lower max_img_size"
            )
        self._check_structure(ids, frame.num_structural, "the query or the instruction")
        return frame

    def tokenize(self, frame: Frame, documents: Sequence[Part]) -> list[TokenizedText | InvalidInputError]:
        """Put each document into a frame. One that is too long loses the end of its text.

        Returns:
            The tokenized prompts, in the order of `documents`; an error stands for a document whose image alone is too
            long, or whose text is read as a special token.
        """
        results: list[TokenizedText | InvalidInputError] = []
        for batch in batches(documents, lambda document: len(document.text or "")):
            results += self._tokenize_batch(frame, [self._render(document) for document in batch])
        return results

    def find_tokens(self, text: str) -> list[int]:
        """Return where each token of a text begins, in characters; template and special tokens are left out.

        Where the text spells out special tokens the places are those in what is read instead, a few characters later.
        """
        encoding = self._tokenizer.encode(self._special.break_up(text), add_special_tokens=False)
        return [begin for begin, _ in encoding.offsets]

    def find_surplus(self, frame: Frame, image_tokens: Sequence[int], text: str) -> int:
        """Return by how many tokens a frame is too long with this document; 0 or less: it fits."""
        document = self._render(Part(text, image_tokens))
        return len(self._tokenizer.encode(frame.fill(document.image, document.text)).ids) - self._limit

    def to_tensors(self, texts: Sequence[TokenizedText]) -> dict[str, npt.NDArray[np.int64]]:
        """See `pad_texts`."""
        return pad_texts(texts, self._text)

    def _tokenize_batch(self, frame: Frame, documents: list[_Rendered]) -> list[TokenizedText | InvalidInputError]:
        results: dict[int, TokenizedText | InvalidInputError] = {}
        for document in documents:
            document.kept = min(document.kept, CHARACTERS_PER_TOKEN * self._limit)
        cuts = 0
        pending = list(range(len(documents)))
        while pending:
            parts = [documents[index] for index in pending]
            encodings = self._tokenizer.encode_batch([frame.fill(part.image, part.text[: part.kept]) for part in parts])
            for index, document, encoding in zip(pending, parts, encodings, strict=True):
                surplus = len(encoding.ids) - self._limit
                if surplus > 0 and frame.ends_with_document:
                    results[index] = self._finish(frame, document, encoding, surplus)
                elif surplus > 0 and document.kept:
                    surplus <<= max(0, cuts - PATIENT_CUTS)
                    begin = len(frame.before) + len(document.image)
                    document.kept = _find_cut(encoding, begin, document.kept, surplus)
                elif cuts == 0 and document.kept < len(document.text):
                    document.kept = len(document.text)
                else:
                    results[index] = self._finish(frame, document, encoding)
            pending = [index for index in pending if index not in results]
            cuts += 1
        return [results[index] for index in range(len(documents))]

    def _finish(
        self, frame: Frame, document: _Rendered, encoding: Encoding, surplus: int = 0
    ) -> TokenizedText | InvalidInputError:
        """Return a prompt without so many of the document's last tokens, with what the tokenizer adds after them."""
        ids = array("i", encoding.ids)
        truncated = document.is_cut or document.kept < len(document.text) or surplus > 0
        if 0 < surplus <= _count_tokens_from(encoding, len(frame.before) + len(document.image)):
            end = len(ids) - encoding.special_tokens_mask[::-1].index(0)
            del ids[end - surplus : end]
        if len(ids) > self._limit or (truncated and not document.content):
            return InvalidInputError(
                f"the document does not fit: query, template and the document's images take {len(ids)} tokens, the "
                f"model reads {self._text.max_tokens}; shorten the query, or lower max_img_size"
            )
        expected = frame.num_structural + (document.num_structural if frame.reads_document else 0)
        try:
            self._check_structure(ids, expected, "the document")
        except InvalidInputError as error:
            return error
        ids.extend(self._prompt.suffix_token_ids)
        return TokenizedText(ids, truncated, find_bucket(len(ids), self._text))

    def _render(self, part: Part) -> _Rendered:
        image, num_structural = "", 0
        if self._prompt.image:
            token = self._prompt.image_token
            image = "".join(self._prompt.image.replace(token, token * count) for count in part.image_tokens)
            num_structural = sum(self._num_image - 1 + count for count in part.image_tokens)
        if part.text is not None:
            text = self._special.break_up(part.text[:MAX_CHARACTERS])
            return _Rendered(image, text, num_structural, len(part.text) > MAX_CHARACTERS, len(text))
        missing = "" if image else self._prompt.missing_text
        return _Rendered(image, missing, num_structural, False, len(missing))

    def _count_structural(self, ids: Sequence[int]) -> int:
        return int(np.isin(np.asarray(ids, np.int64), self._structural_ids).sum())

    def _check_structure(self, ids: Sequence[int], expected: int, source: str) -> None:
        """Make sure that no text became a special token, for example by the tokenizer's normalization.

        Raises:
            InvalidInputError: The prompt has another number of special tokens than its frame.
        """
        found = self._count_structural(ids)
        if found != expected:
            raise InvalidInputError(
                f"{source} holds what the model's tokenizer reads as a special token ({found} in the prompt, expected "
                f"{expected}); remove words in brackets such as <|...|> or [...]"
            )


def _count_tokens_from(encoding: Encoding, begin: int) -> int:
    """Return how many tokens of a prompt begin at a character or later; what the tokenizer adds begins at 0."""
    return sum(start >= begin for start, _ in encoding.offsets)


def _find_cut(encoding: Encoding, begin: int, length: int, surplus: int) -> int:
    """Return how many characters of a text to keep, so that it loses so many of its tokens.

    Args:
        encoding: The encoding of the whole prompt.
        begin: The position in the prompt, in characters, at which the text begins.
        length: The length of the text, in characters.
        surplus: How many tokens the text must lose, at least 1.

    Returns:
        The number of characters, less than `length`.
    """
    starts = [start for start, end in encoding.offsets if begin <= start < begin + length and start < end]
    return starts[-surplus] - begin if surplus <= len(starts) else 0

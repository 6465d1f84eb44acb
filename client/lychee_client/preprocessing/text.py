"""Texts: checked, tokenized, truncated, padded to a bucket."""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

import numpy as np
import numpy.typing as npt

from lychee_client._errors import ContractError, InvalidInputError
from lychee_client.manifest.manifest import TextSpec

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Far above what any model reads; keeps a text of megabytes from being tokenized to its end.
MAX_CHARACTERS: Final = 65_536
# Texts that are tokenized at once: an encoding takes about 100 bytes per token until its ids are taken out.
BATCH_CHARACTERS: Final = 262_144
# White space, and what Unicode calls default ignorable: of no width, and no letter of any script.
# Source: https://www.unicode.org/Public/16.0.0/ucd/DerivedCoreProperties.txt
_INVISIBLE: Final = re.compile(
    r"[\s\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    r"\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    r"\U000e0000-\U000e0fff]*"
)


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TokenizedText:
    """One text as the model reads it.

    Attributes:
        ids: The token ids with special tokens and, for a pair, with template and query; at most max_tokens of them.
        truncated: True if the text was longer.
        bucket: The length that `ids` will be padded to.
        attended: How many of the first `ids` the others read; None for all.
    """

    ids: Sequence[int]
    truncated: bool
    bucket: int
    attended: int | None = None


class TextProcessor:
    """Turns texts into `input_ids` and `attention_mask`.

    Args:
        tokenizer_json: The content of a `tokenizers` file.
        spec: The manifest's specification of texts.
        reserved: How many of a text's tokens are added to those that the tokenizer gives.

    Raises:
        ContractError: The tokenizer cannot be read.
    """

    def __init__(self, tokenizer_json: str, spec: TextSpec, reserved: int = 0) -> None:
        self._tokenizer = load_tokenizer(tokenizer_json)
        self._longest = spec.max_tokens - reserved
        self._tokenizer.enable_truncation(max_length=self._longest)
        self._spec = spec

    def tokenize_query(self, text: str, prefix: str | None = None) -> TokenizedText:
        """Tokenize one query; the text has passed `check_text`.

        Args:
            text: The query.
            prefix: What is put before the query. None takes the model's usual prefix.
        """
        return self._tokenize([text], prefix if prefix is not None else self._spec.query_prefix or "")[0]

    def tokenize_documents(self, texts: Sequence[str]) -> list[TokenizedText]:
        """Tokenize documents that have passed `check_text`."""
        return self._tokenize(texts, self._spec.document_prefix or "")

    def _tokenize(self, texts: Sequence[str], prefix: str) -> list[TokenizedText]:
        tokenized: list[TokenizedText] = []
        for batch in batches(texts, len):
            encodings = self._tokenizer.encode_batch([prefix + text[:MAX_CHARACTERS] for text in batch])
            tokenized += [
                TokenizedText(
                    ids=array("i", encoding.ids),
                    truncated=bool(encoding.overflowing) or len(text) > MAX_CHARACTERS,
                    bucket=find_bucket(len(encoding.ids), self._spec),
                )
                for text, encoding in zip(batch, encodings, strict=True)
            ]
        return tokenized

    def find_tokens(self, text: str) -> list[int]:
        """Return where each token of a text begins, in characters; prefix and special tokens are left out."""
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        return [begin for part in (encoding, *encoding.overflowing) for begin, _ in part.offsets]

    def find_query_surplus(self, text: str, prefix: str | None = None) -> int:
        """Return by how many tokens a query is too long; 0 or less: it fits."""
        whole = (prefix if prefix is not None else self._spec.query_prefix or "") + text
        return self.find_length(whole) - self._longest

    def find_document_surplus(self, text: str) -> int:
        """Return by how many tokens a document is too long; 0 or less: it fits."""
        return self.find_length((self._spec.document_prefix or "") + text) - self._longest

    def find_length(self, text: str) -> int:
        """Return how many tokens the tokenizer makes of a text, special tokens included, if nothing is cut."""
        encoding = self._tokenizer.encode(text)
        return len(encoding.ids) + sum(part.special_tokens_mask.count(0) for part in encoding.overflowing)

    def to_tensors(self, texts: Sequence[TokenizedText]) -> dict[str, npt.NDArray[np.int64]]:
        """See `pad_texts`."""
        return pad_texts(texts, self._spec)


def load_tokenizer(tokenizer_json: str) -> Tokenizer:
    """Read a `tokenizers` file; the tokenizer neither truncates nor pads.

    Raises:
        ContractError: It cannot be read.
    """
    from tokenizers import Tokenizer  # not before a model is there

    try:
        tokenizer = Tokenizer.from_str(tokenizer_json)
    except Exception as error:  # the Rust side raises a plain Exception
        raise ContractError(
            f"the server's tokenizer cannot be read: {error}; upgrade the package tokenizers, or export again"
        ) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def find_bucket(length: int, spec: TextSpec) -> int:
    """Return the smallest bucket that holds so many tokens."""
    return spec.buckets[bisect_left(spec.buckets, length)]


def pad_texts(texts: Sequence[TokenizedText], spec: TextSpec) -> dict[str, npt.NDArray[np.int64]]:
    """Pad to the smallest bucket that holds the longest text.

    Returns:
        `input_ids` and `attention_mask`, both int64, (batch_size, sequence_length).
    """
    shape = (len(texts), max(text.bucket for text in texts))
    input_ids = np.full(shape, spec.pad_token_id, np.int64)
    attention_mask = np.zeros(shape, np.int64)
    for row, text in enumerate(texts):
        input_ids[row, : len(text.ids)] = text.ids
        attention_mask[row, : len(text.ids) if text.attended is None else text.attended] = 1
    return {"input_ids": input_ids, "attention_mask": attention_mask}


def batches(items: Sequence[T], count_characters: Callable[[T], int]) -> Iterator[list[T]]:
    """Yield the items in order, as many together as have BATCH_CHARACTERS, or one."""
    batch: list[T] = []
    characters = 0
    for item in items:
        if batch and characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
        batch.append(item)
        characters += count_characters(item)
    if batch:
        yield batch


def skip_invisible(text: str, start: int) -> int:
    """Return the position of the first visible character from `start` on, or the length of the text."""
    found = _INVISIBLE.match(text, start)
    assert found is not None  # it may be empty
    return found.end()


def is_visible(text: str) -> bool:
    """Say whether a text has a visible character."""
    return not _INVISIBLE.fullmatch(text)


def check_text(text: object) -> None:
    """Refuse what has no meaning to rank.

    Raises:
        InvalidInputError: The value is not a string, has no visible character, or is not valid Unicode.
    """
    if not isinstance(text, str):
        raise InvalidInputError(f"the text is a {type(text).__name__}, expected a str")
    if not is_visible(text):
        raise InvalidInputError(f"the text is empty ({text[:20]!a}); expected at least one visible character")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidInputError(
            f"the text is not valid Unicode: half of a surrogate pair at position {error.start}; decode it again from "
            "its bytes"
        ) from error

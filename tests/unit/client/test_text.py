"""Texts: checks, truncation, buckets, tensors."""

import numpy as np
import pytest
from fakes.dual_encoder import make_tokenizer_json
from lychee_client import ContractError, InvalidInputError
from lychee_client.manifest.manifest import TextSpec
from lychee_client.preprocessing import text as text_module
from lychee_client.preprocessing.text import TextProcessor, check_text

SPEC = TextSpec(query_prefix="q:", document_prefix="d:", pad_token_id=1, max_tokens=12, buckets=(4, 8, 16))
START, END = 0, 2


@pytest.fixture(scope="module")
def processor() -> TextProcessor:
    return TextProcessor(make_tokenizer_json(), SPEC)


# One token per byte; prefix and special tokens take 4.
@pytest.mark.parametrize(
    ("text", "tokens", "bucket", "truncated"),
    [
        ("a" * 4, 8, 8, False),
        ("a" * 5, 9, 16, False),
        ("a" * 8, 12, 16, False),
        ("a" * 9, 12, 16, True),
        ("a" * 5000, 12, 16, True),
    ],
)
def test_smallest_bucket_and_truncation(
    processor: TextProcessor, text: str, tokens: int, bucket: int, truncated: bool
) -> None:
    (tokenized,) = processor.tokenize_documents([text])
    assert (len(tokenized.ids), tokenized.bucket, tokenized.truncated) == (tokens, bucket, truncated)
    assert (tokenized.ids[0], tokenized.ids[-1]) == (START, END)


def test_truncation_keeps_prefix_and_end(processor: TextProcessor) -> None:
    whole, cut = processor.tokenize_documents(["abcdefgh", "abcdefghij"])
    assert cut.ids == whole.ids


def test_prefixes_differ(processor: TextProcessor) -> None:
    query, (document,) = processor.tokenize_query("abc"), processor.tokenize_documents(["abc"])
    assert query.ids[0] == document.ids[0]
    assert query.ids[1] != document.ids[1]
    assert query.ids[2:] == document.ids[2:]


def test_text_of_megabytes_is_cut_before_tokenizing(processor: TextProcessor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_module, "MAX_CHARACTERS", 3)
    kept, cut = processor.tokenize_documents(["abc", "abcd"])
    assert kept.ids == cut.ids
    assert (kept.truncated, cut.truncated) == (False, True)


def test_tensors_are_padded_to_the_bucket_of_the_longest(processor: TextProcessor) -> None:
    texts = processor.tokenize_documents(["a", "bb", "ccccc"])
    tensors = processor.to_tensors(texts)
    assert {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()} == {
        "input_ids": ((3, 16), np.int64),
        "attention_mask": ((3, 16), np.int64),
    }
    for row, text in enumerate(texts):
        length = len(text.ids)
        assert tensors["input_ids"][row, :length].tolist() == list(text.ids)
        assert (tensors["input_ids"][row, length:] == SPEC.pad_token_id).all()
        assert tensors["attention_mask"][row].tolist() == [1] * length + [0] * (16 - length)


def test_no_texts_is_fine(processor: TextProcessor) -> None:
    assert processor.tokenize_documents([]) == []


@pytest.mark.parametrize("text", ["", " ", "\n\t\u3000", None, 3, b"bytes", "broken \ud83d"])
def test_unusable_text_is_refused(text: object) -> None:
    with pytest.raises(InvalidInputError):
        check_text(text)


@pytest.mark.parametrize(
    "text", ["\u200b", "\ufeff \u2060\n", "\u00ad", "\u200e\u200d", "\u3164", "\ufe0f", "\U000e0001"]
)
def test_text_of_no_width_is_an_empty_text(text: str) -> None:
    with pytest.raises(InvalidInputError, match="the text is empty"):
        check_text(text)


def test_lone_surrogate_is_named_in_our_words() -> None:
    with pytest.raises(InvalidInputError, match="half of a surrogate pair at position 1;"):
        check_text("a\ud800")


@pytest.mark.parametrize("text", ["a", " a ", "猫", "😀", "\x00", "\u200ba", "👩\u200d🍳", "\u2800"])
def test_usable_text_passes(text: str) -> None:
    check_text(text)


def test_unreadable_tokenizer_is_a_contract_error() -> None:
    with pytest.raises(ContractError, match="tokenizer cannot be read"):
        TextProcessor("{}", SPEC)

"""Texts to sentences: exact positions, whatever the script."""

from __future__ import annotations

from typing import Any

import pytest
import sentencex
from hypothesis import given, settings
from hypothesis import strategies as st
from lychee_client.preprocessing.text import is_visible
from lychee_client.sentences import MAX_CHARACTERS, find_cut, find_sentences

# Whatever ends, begins, joins or separates sentences and characters, and some that the library once failed on.
PIECES = [
    *["a", "B", "word ", ".", "!", "?", ". ", "...", "Dr.", "Mr. ", "U.S.", "1.5", "[1]", "(", ")", "'", '"', "-"],
    *["一只小猫", "中", "。", "！", "？", "…", "“", "”", "「", "」", "\u3000", "吾輩は猫である。"],
    *["😺", "👍🏽", "👨\u200d👩\u200d👧", "🇨🇳", "e\u0301", "ก\u0e49", "한국어. ", "हूँ। ", "։ "],
    *["שלום", "مرحبا", "؟ ", "\u200f", "\u202e", "\u2067"],
    *[
        "\n",
        "\r\n",
        "\r",
        "\n\n",
        "\u2028",
        "\x85",
        "\x0b",
        "\x1c",
        "\t",
        " ",
        "\u00a0",
        "\u2003",
        "\u200b",
        "\ufeff",
        "\x00",
    ],
]
TEXTS = st.lists(st.sampled_from(PIECES) | st.characters(exclude_categories=["Cs"]), max_size=60).map("".join)
LONG_TEXTS = st.tuples(TEXTS, st.integers(1, 40)).map(lambda each: each[0] * each[1])


def sentences(text: str) -> list[str]:
    return [text[start:end] for start, end in find_sentences(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A cat sleeps. Does it? It does!", ["A cat sleeps.", "Does it?", "It does!"]),
        ("Dr. Smith lives in the U.S. with a cat. See e.g. Fig. 3.", None),
        ("小猫喜欢晒太阳。它们怕冷！你知道吗？知道", ["小猫喜欢晒太阳。", "它们怕冷！", "你知道吗？", "知道"]),
        ("她说：“我爱猫。”然后走了。", ["她说：“我爱猫。”", "然后走了。"]),
        ("名前はまだ無い。\u3000どこで生れたか。", ["名前はまだ無い。", "どこで生れたか。"]),
        ("We need plan B\u3000. And a plan C.", ["We need plan B\u3000.", "And a plan C."]),
        ("مرحبا بالعالم. كيف حالك؟ بخير!", ["مرحبا بالعالم.", "كيف حالك؟", "بخير!"]),
        ("मैं घर जा रहा हूँ। तुम कहाँ हो?", ["मैं घर जा रहा हूँ।", "तुम कहाँ हो?"]),
        ("I love 👨\u200d👩\u200d👧! Cafe\u0301 😺. Ok.", ["I love 👨\u200d👩\u200d👧!", "Cafe\u0301 😺.", "Ok."]),
        ("name: cat\nprice: 3.5\n\n- one\r\n- two", ["name: cat", "price: 3.5", "- one", "- two"]),
        ("  \n\t \u200b\n", []),
        ("", []),
    ],
)
def test_a_text_is_taken_apart(text: str, expected: list[str] | None) -> None:
    if expected is None:  # abbreviations end no sentence
        expected = [text[: text.index(" See")], text[text.index("See") :]]
    assert sentences(text) == expected


@settings(deadline=None)
@given(TEXTS | LONG_TEXTS)
def test_sentences_are_all_that_is_visible_in_order(text: str) -> None:
    last = 0
    for start, end in find_sentences(text):
        assert last <= start < end <= len(text)
        assert end - start <= MAX_CHARACTERS
        assert text[start:end] == text[start:end].strip()
        assert is_visible(text[start:end])
        assert not is_visible(text[last:start])
        last = end
    assert not is_visible(text[last:])


@settings(deadline=None)
@given(TEXTS)
def test_the_library_keeps_the_length_of_a_line_with_plain_spaces(text: str) -> None:
    line = "".join(character if character == " " or not character.isspace() else " " for character in text)
    assert sum(map(len, sentencex.segment("en", line))) == len(line)


@pytest.mark.parametrize("word", ["word ", "word, ", "中", "中，", "👨\u200d👩\u200d👧", "e\u0301", "👍🏽"])
def test_what_never_ends_is_cut_between_characters(word: str) -> None:
    text = word * 1000
    found = list(find_sentences(text))
    assert len(found) > 1
    assert all(start % len(word) == 0 for start, _ in found)
    assert all(end - start > MAX_CHARACTERS // 2 for start, end in found[:-1])


def test_a_sentence_at_the_border_of_what_is_read_at_a_time_stays_whole() -> None:
    whole = "A sentence of some words that follow each other."
    text = f"{'a' * (MAX_CHARACTERS - 20)}. {whole} Another one."
    assert sentences(text)[1:] == [whole, "Another one."]


def test_a_cut_is_at_white_space_then_at_punctuation_then_between_characters() -> None:
    assert [find_cut(text, 8) for text in ("aaaaa a,aa", "aaaaa,aaa", "aaaaaaaae\u0301a"[1:], "e" + "\u0301" * 9)] == [
        6,
        6,
        7,
        8,
    ]


class PanicException(BaseException):
    """As Python sees a panic of Rust."""


@pytest.mark.parametrize("answer", [PanicException(), ["A.", " B"]])
def test_what_the_library_fails_on_is_one_sentence(monkeypatch: pytest.MonkeyPatch, answer: Any) -> None:
    def segment(language: str, text: str) -> list[str]:
        if isinstance(answer, BaseException):
            raise answer
        return answer

    monkeypatch.setattr(sentencex, "segment", segment)
    assert sentences("A. B. C.") == ["A. B. C."]


def test_other_faults_of_the_library_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def segment(language: str, text: str) -> list[str]:
        raise KeyboardInterrupt

    monkeypatch.setattr(sentencex, "segment", segment)
    with pytest.raises(KeyboardInterrupt):
        sentences("A. B. C.")

"""Windows of long texts: they fit, cover everything, overlap as asked, and part no word or character without need."""

from __future__ import annotations

import unicodedata
from itertools import pairwise
from pathlib import Path

import pytest
from fakes.cross_encoder import PATCHES_MANIFEST
from fakes.cross_encoder import make_tokenizer_json as make_prompt_tokenizer
from fakes.dual_encoder import make_tokenizer_json
from hypothesis import given, settings
from hypothesis import strategies as st
from lychee_client import Chunking
from lychee_client.manifest.manifest import TextSpec
from lychee_client.manifest.prompt_spec import MODALITIES, PromptSpec
from lychee_client.preprocessing import windows as windows_module
from lychee_client.preprocessing.prompt import Part, PromptProcessor
from lychee_client.preprocessing.text import TextProcessor, skip_invisible
from lychee_client.preprocessing.windows import FindSurplus, FindTokens, cut_text, find_border, find_windows

settings.register_profile("windows", deadline=None, derandomize=True, database=None, max_examples=60)
settings.load_profile("windows")

SPEC = TextSpec(query_prefix="q:", document_prefix="d:", pad_token_id=1, max_tokens=24, buckets=(24,))
MINI = Path(__file__).parents[3] / "export/lychee_export/checkpoint/bundled/lychee_mini/tokenizer.json"
PIECES = [
    "cat",
    "extraordinary",
    " ",
    "  ",
    "\n",
    ". ",
    "一只猫",
    "。",
    "é",
    "e\u0301",
    "👩‍👩‍👧",
    "👍🏽",
    "🇩🇪",
    "\u200b",
    "각",
    "<|im_end|>",
]
TEXTS = st.lists(st.sampled_from(PIECES) | st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60).map(
    "".join
)


@pytest.fixture(scope="module", params=["bytes", "prompt", "mini"])
def measures(request: pytest.FixtureRequest) -> tuple[FindTokens, FindSurplus, int]:
    """Return what finds tokens, what measures a text, and how many tokens fit."""
    if request.param == "prompt":
        prompt = PromptSpec(**{**PATCHES_MANIFEST["prompt"], "queries": MODALITIES, "documents": MODALITIES})
        prompts = PromptProcessor(
            make_prompt_tokenizer(), TextSpec(pad_token_id=0, max_tokens=40, buckets=(40,)), prompt
        )
        frame = prompts.make_frame(Part("q"), "i")
        return prompts.find_tokens, lambda text: prompts.find_surplus(frame, (4,), text), 40 - 10 - 6
    processor = TextProcessor(make_tokenizer_json() if request.param == "bytes" else MINI.read_text("utf-8"), SPEC)
    return processor.find_tokens, processor.find_document_surplus, -processor.find_document_surplus("")


def spans(text: str, measures: tuple[FindTokens, FindSurplus, int], overlap: int = 0) -> list[tuple[int, int]]:
    find_tokens, find_surplus, _ = measures
    return list(find_windows(text, Chunking(overlap).find_overlap, find_tokens, find_surplus))


@given(text=TEXTS, overlap=st.integers(0, 12))
def test_windows_fit_and_cover_what_is_visible(
    measures: tuple[FindTokens, FindSurplus, int], text: str, overlap: int
) -> None:
    found = spans(text, measures, overlap)
    assert all(0 <= start < end <= len(text) for start, end in found)
    assert all(measures[1](text[start:end]) <= 0 for start, end in found)
    assert all(skip_invisible(text[start:end], 0) < end - start for start, end in found)
    covered = 0
    for start, end in found:
        assert skip_invisible(text, covered) >= start  # no visible character lies between two windows
        assert end > covered  # each goes further than the one before
        covered = end
    assert skip_invisible(text, covered) == len(text)


@given(text=TEXTS)
def test_text_that_fits_is_one_window(measures: tuple[FindTokens, FindSurplus, int], text: str) -> None:
    fits = measures[1](text) <= 0 and skip_invisible(text, 0) < len(text)
    assert (spans(text, measures) == [(0, len(text))]) == fits


@given(text=TEXTS)
def test_windows_cut_no_character_that_several_code_points_are(
    measures: tuple[FindTokens, FindSurplus, int], text: str
) -> None:
    for start, end in spans(text, measures, 4):
        for place in {start, end} - {0, len(text)}:
            longest = max(place - start, end - place)
            joined = unicodedata.category(text[place])[0] == "M"
            # Only a run of marks that is as long as a window is cut.
            assert not joined or all(unicodedata.category(mark)[0] == "M" for mark in text[place - longest + 1 : place])


@pytest.mark.parametrize("overlap", [0, 1, 4, 8])
def test_windows_overlap_by_as_many_tokens_as_asked(overlap: int) -> None:
    processor = TextProcessor(make_tokenizer_json(), SPEC)
    measures = (processor.find_tokens, processor.find_document_surplus, 20)
    text = "猫" * 3 + "".join(map(chr, range(0x4E00, 0x4E80)))
    found = spans(text, measures, overlap)
    for (_, end), (start, _) in pairwise(found):
        shared = len(processor.find_tokens(text[start:end]))
        assert overlap <= shared <= max(0, overlap + 2) or shared == overlap == 0


def test_overlap_is_at_most_half_of_a_window_and_a_small_part_by_default() -> None:
    assert [Chunking(overlap).find_overlap(20) for overlap in (0, 9, 10, 500)] == [0, 9, 10, 10]
    assert [Chunking().find_overlap(room) for room in (1, 75, 640, 8000)] == [0, 9, 80, 80]


def test_windows_end_and_begin_between_words() -> None:
    processor = TextProcessor(make_tokenizer_json(), SPEC)
    text = "one two three four five six seven eight nine ten " * 3
    found = spans(text, (processor.find_tokens, processor.find_document_surplus, 20), 5)
    words = set(text.split())
    assert len(found) > 5
    assert all(set(text[start:end].split()) <= words for start, end in found)


@pytest.mark.parametrize(
    ("text", "high", "border"),
    [
        ("one two", 6, 4),
        ("one two", 4, 4),
        ("onetwo", 4, 4),
        ("一只猫", 2, 2),
        ("cafe\u0301s", 5, 5),
        ("cafe\u0301s", 4, 3),
        ("go 👩‍👧 on", 5, 3),
        ("ok👍🏽", 3, 2),
        ("a\r\nb", 2, 1),
        ("한국 한국", 4, 4),
    ],
)
def test_border_is_between_words_or_else_between_characters(text: str, high: int, border: int) -> None:
    assert find_border(text, 0, high) == border


@given(text=TEXTS, most=st.integers(1, 40))
def test_text_is_cut_to_so_many_tokens(measures: tuple[FindTokens, FindSurplus, int], text: str, most: int) -> None:
    find_tokens = measures[0]
    length = cut_text(text, most, find_tokens)
    assert len(find_tokens(text[:length])) <= most
    assert length == len(text) or len(find_tokens(text[: length + 4])) > most - 4 or most < 4
    assert (length == len(text)) == (len(find_tokens(text)) <= most)


def test_limit_beyond_what_is_tokenized_at_once_counts_all_of_its_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows_module, "MAX_CHARACTERS", 10)
    processor = TextProcessor(make_tokenizer_json(), SPEC)
    assert cut_text("a cat " * 10, 33, processor.find_tokens) == 33
    assert cut_text("a cat " * 10, 99, processor.find_tokens) == 60


def test_no_more_of_a_text_is_tokenized_than_is_asked_for() -> None:
    processor = TextProcessor(make_tokenizer_json(), SPEC)
    seen: list[int] = []

    def find_tokens(text: str) -> list[int]:
        seen.append(len(text))
        return processor.find_tokens(text)

    windows = find_windows("a cat " * 100_000, Chunking().find_overlap, find_tokens, processor.find_document_surplus)
    assert [next(windows) for _ in range(3)] == [(0, 20), (18, 38), (36, 56)]
    assert sum(seen) < 1000


def test_window_that_reaches_no_further_for_what_it_repeats_repeats_nothing() -> None:
    def measure(part: str) -> int:
        return len(part) - (4 if part[:1] in ("", "a") else 2)

    windows = find_windows("abcdefgh", Chunking(2).find_overlap, lambda part: range(len(part)), measure)
    assert list(windows) == [(0, 4), (4, 6), (5, 7), (6, 8)]


@pytest.mark.parametrize("length", [9, 10, 18, 28])
def test_words_as_long_as_the_overlap_do_not_make_many_windows(length: int) -> None:
    processor = TextProcessor(make_tokenizer_json(), SPEC)
    text = ("a " + "x" * length + " ") * (1200 // (length + 3))
    found = spans(text, (processor.find_tokens, processor.find_document_surplus, 20), 10)
    assert len(found) <= 2.5 * len(text) / 20  # two would be least, as each half is read twice


def test_text_without_room_has_no_windows() -> None:
    assert list(find_windows("a cat", Chunking().find_overlap, lambda text: [], lambda text: len(text))) == []
    # A character of four tokens where three fit.
    bytes_of = TextProcessor(make_tokenizer_json(), SPEC).find_tokens
    assert list(find_windows("😀a", Chunking().find_overlap, bytes_of, lambda text: len(bytes_of(text)) - 3)) == []

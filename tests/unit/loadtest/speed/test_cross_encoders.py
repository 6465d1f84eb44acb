"""The comparison of text cross-encoders: equal work for everyone, and nobody's caches know it."""

from lychee_loadtest.speed.cross_encoders.checkpoint import VOCABULARY, list_words
from lychee_loadtest.speed.cross_encoders.texts import Texts


def lengths(texts: Texts, documents: int) -> list[int]:
    call = texts.call(documents)
    return [len(text.split()) for text in (call.query, *map(str, call.documents))]


def test_equal_seeds_of_lengths_give_equal_work_in_other_words() -> None:
    calls = [Texts("round 1", words).call(50) for words in ("round 1 lychee", "round 1 session")]
    assert lengths(Texts("round 1", "a"), 50) == lengths(Texts("round 1", "b"), 50)
    assert lengths(Texts("round 1", "a"), 50) != lengths(Texts("round 2", "a"), 50)
    assert not set(calls[0].documents) & set(calls[1].documents)
    assert calls[0] == Texts("round 1", "round 1 lychee").call(50)


def test_texts_have_mixed_lengths_from_8_to_300_tokens() -> None:
    _, *found = lengths(Texts("many", "words"), 2000)
    assert min(found) == 8
    assert max(found) == 300
    assert 40 < sorted(found)[1000] < 56


def test_words_are_as_many_as_the_vocabulary_has_room_for() -> None:
    words = list_words()
    assert len(set(words)) == len(words) > VOCABULARY - 200

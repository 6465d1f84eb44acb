"""What the callers ask, and what a right answer is."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import pytest
from lychee_loadtest.locust.workload import LANES, Call, Document, Lane, Workload, WorkloadMix, find_problem
from lychee_loadtest.payloads import fresh_photos, fresh_texts

TEXTS = WorkloadMix(text_share=1.0, image_share=0.0, fresh_share=0.5, bulk_documents=200)
CALL = Call("interactive", "text", "a cat", (Document("a"), Document("b"), Document("c")))


def make_calls(workload: Workload, lane: Lane, count: int) -> list[Call]:
    return [workload.make_call(lane) for _ in range(count)]


def test_an_interactive_call_has_1_to_20_documents_and_a_bulk_call_1000() -> None:
    workload = Workload(WorkloadMix(text_share=1.0, image_share=0.0))
    sizes = {len(call.documents) for call in make_calls(workload, "interactive", 300)}
    assert sizes == set(range(1, 21))
    (bulk,) = make_calls(workload, "bulk", 1)
    assert (len(bulk.documents), bulk.name) == (1000, "bulk/text")


def test_modalities_have_their_shares() -> None:
    mix = WorkloadMix(text_share=0.5, image_share=0.3, fresh_share=0.0, bulk_text_share=0.5, bulk_documents=2)
    calls = make_calls(Workload(mix), "interactive", 2000)
    counts = Counter(call.modality for call in calls)
    assert counts["text"] == pytest.approx(1000, abs=100)
    assert counts["image"] == pytest.approx(600, abs=100)
    assert counts["mixed"] == pytest.approx(400, abs=100)
    bulk = Counter(call.modality for call in make_calls(Workload(mix), "bulk", 400))
    assert set(bulk) == {"text", "mixed"}
    assert bulk["text"] == pytest.approx(200, abs=50)


@pytest.mark.parametrize("fresh_share", [0.0, 1.0])
def test_documents_have_the_parts_of_their_modality(fresh_share: float) -> None:
    mix = WorkloadMix(text_share=0.3, image_share=0.3, fresh_share=fresh_share, max_documents=4)
    parts: dict[str, set[tuple[bool, bool]]] = {"text": set(), "image": set(), "mixed": set()}
    for call in make_calls(Workload(mix), "interactive", 60):
        parts[call.modality] |= {(doc.text is not None, doc.jpeg is not None) for doc in call.documents}
    assert parts == {
        "text": {(True, False)},
        "image": {(False, True)},
        "mixed": {(True, False), (False, True), (True, True)},
    }


def test_the_stated_share_of_documents_is_new_and_every_query_is() -> None:
    calls = make_calls(Workload(TEXTS), "bulk", 20)
    counts = Counter(document.text for call in calls for document in call.documents)
    new = sum(1 for count in counts.values() if count == 1)
    assert new == pytest.approx(2000, abs=150)
    assert len({call.query for call in calls}) == len(calls)


def test_same_seed_asks_the_same_and_another_process_something_else() -> None:
    def shapes_of(seed: int, worker: int) -> list[tuple[str, int]]:
        workload = Workload(WorkloadMix(fresh_share=0.0), seed=seed, worker=worker)
        return [(call.name, len(call.documents)) for lane in LANES for call in make_calls(workload, lane, 10)]

    assert shapes_of(1, 0) == shapes_of(1, 0)
    assert shapes_of(1, 0) != shapes_of(1, 1)
    assert shapes_of(1, 0) != shapes_of(2, 0)


def test_a_server_that_saw_another_run_knows_none_of_the_new_documents() -> None:
    def new_texts(run: int, worker: int) -> set[str | None]:
        mix = WorkloadMix(text_share=1.0, image_share=0.0, fresh_share=1.0)
        workload = Workload(mix, run=run, worker=worker)
        return {document.text for call in make_calls(workload, "interactive", 20) for document in call.documents}

    assert not new_texts(1, 0) & new_texts(2, 0)
    assert not new_texts(1, 0) & new_texts(1, 1)
    assert set(islice(fresh_photos(1), 12)).isdisjoint(islice(fresh_photos(2), 12))
    assert set(islice(fresh_texts(), 50)).isdisjoint(islice(fresh_texts(50), 50))


@pytest.mark.parametrize(
    ("ranked", "problem"),
    [
        ([(2, 0.9), (0, 0.5), (1, 0.5)], None),
        ([(0, 1.0), (1, 0.0), (2, 0.0)], None),
        ([(2, 0.9), (0, 0.5)], "1 of 3 documents have no result"),
        ([(2, 0.9), (0, 0.5), (0, 0.4)], "1 of 3 documents have no result"),
        ([(2, 0.9), (0, 0.5), (1, 0.4), (1, 0.4)], "come twice"),
        ([(2, 0.9), (0, 0.5), (3, 0.4)], "were not asked for"),
        ([(2, 0.4), (0, 0.5), (1, 0.3)], "not in order"),
        ([(2, 1.01), (0, 0.5), (1, 0.3)], "not in [0, 1]"),
        ([(2, 0.9), (0, 0.5), (1, -0.1)], "not in [0, 1]"),
        ([(2, float("nan")), (0, 0.5), (1, 0.1)], "not in [0, 1]"),
    ],
)
def test_a_wrong_answer_is_found(ranked: list[tuple[int, float]], problem: str | None) -> None:
    found = find_problem(CALL, ranked)
    assert (found is None) == (problem is None)
    assert (problem or "") in (found or "")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"text_share": 1.5}, "text_share is 1.5"),
        ({"fresh_share": -0.1}, "fresh_share is -0.1"),
        ({"text_share": 0.7, "image_share": 0.7}, "exceed 1 together"),
        ({"bulk_documents": 0}, "bulk_documents is 0"),
    ],
)
def test_a_mix_that_cannot_be_is_refused(values: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WorkloadMix(**values)  # type: ignore[arg-type]

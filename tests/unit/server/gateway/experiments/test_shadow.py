"""A shadow by itself: what it takes, what it asks, and what it counts and writes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from lychee_client import (
    DeadlineExceededError,
    Image,
    ImageText,
    InferenceError,
    InvalidInputError,
    LycheeError,
    RelevantSpans,
    RerankOptions,
    RerankResponse,
    RerankResult,
)
from lychee_client.preprocessing import image as image_module
from lychee_client.types import Timings
from lychee_server.defaults import MIB
from lychee_server.gateway.experiments.experiment_file import ShadowSettings
from lychee_server.gateway.experiments.shadow import OUTCOMES, REASONS, Shadow
from lychee_server.gateway.limits import TooBusyError
from lychee_server.gateway.request_ids import current_request_id, use_request_id
from lychee_server.gateway.service_answer import ServiceAnswer
from prometheus_client import CollectorRegistry

PREFIX = "lychee_gateway_experiment_shadow"
SETTINGS = {"model": "new", "share": 1.0, "timeout_s": 5.0, "max_running": 2, "max_mb": 1}
OPTIONS: RerankOptions = {
    "policy": "strict",
    "priority": "interactive",
    "top_n": 1,
    "score_threshold": 0.5,
    "min_results": 1,
    "server_timings": True,
    "relevant_spans": RelevantSpans(),
    "instruction": "Find it.",
    "timeout_s": 30.0,
}
DOCUMENTS = ("a", "b", "c")


def answer(*scores: float) -> ServiceAnswer:
    """Return the answer of a model, of which the caller gets the best result alone."""
    order = sorted(range(len(scores)), key=lambda index: -scores[index])
    results = tuple(
        RerankResult(index=index, relevance_score=scores[index], logit=0.0, decision="accept", modality="text")
        for index in order
    )
    response = RerankResponse(results[:1], (), Timings(), model_version=7)
    return ServiceAnswer(response, "id", everything=RerankResponse(results, (), Timings(), model_version=7))


def service(name: str, rerank: Callable[..., Awaitable[ServiceAnswer]] | None = None, **limit: int) -> Any:
    values = {"waiting": 0, "running": 0, "max_running": 4} | limit
    health, own = SimpleNamespace(state="ready"), SimpleNamespace(policy="the shadow's own")
    return SimpleNamespace(name=name, health=health, limit=SimpleNamespace(**values), own=own, rerank=rerank)


class Trial:
    """A shadow whose model does what the test says."""

    def __init__(self, rerank: Callable[..., Awaitable[ServiceAnswer]] | None = None, **settings: Any) -> None:
        self.asked: list[tuple[Any, list[Any], RerankOptions]] = []
        self.records: list[Any] = []
        self.rerank = rerank
        self.primary, self.model = service("old"), service("new", self._rerank)
        self.registry = CollectorRegistry()
        values = ShadowSettings(**{**SETTINGS, **settings})
        self.shadow = Shadow(values, self.model, self.records.append, self.registry)

    async def _rerank(self, query: Any, documents: list[Any], options: RerankOptions) -> ServiceAnswer:
        self.asked.append((query, documents, options))
        return answer(0.1, 0.9, 0.5) if self.rerank is None else await self.rerank()

    def offer(self, documents: Any = DOCUMENTS, *, by: Any = None, keeps_policy: bool = False) -> None:
        told = answer(0.9, 0.8, 0.1)
        self.shadow.offer(by or self.primary, told, 0.25, "q", documents, OPTIONS, keeps_policy=keeps_policy)

    def counts(self) -> dict[str, float]:
        """Return what was counted, zeros left out."""
        names = {"calls_total": OUTCOMES, "dropped_total": REASONS}
        found = {}
        for name, values in names.items():
            for value in values:
                label = {"outcome" if name == "calls_total" else "reason": value}
                found[value] = self.registry.get_sample_value(f"{PREFIX}_{name}", label) or 0.0
        return {name: count for name, count in found.items() if count}


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def forever() -> ServiceAnswer:
    await asyncio.Event().wait()
    raise AssertionError


def test_a_pair_has_each_side_where_its_name_says() -> None:
    async def main() -> Trial:
        trial = Trial()
        trial.offer()
        await settle()
        return trial

    trial = asyncio.run(main())
    (record,) = trial.records
    sides = {
        key: (record[key]["name"], [each["index"] for each in record[key]["results"]])
        for key in record.keys() - {"record"}
    }
    assert record["record"] == "shadow"
    assert sides == {"primary": ("old", [0, 1, 2]), "shadow": ("new", [1, 2, 0])}
    assert record["primary"]["latency_ms"] == 250.0
    assert record["shadow"]["latency_ms"] > 0
    assert (record["primary"]["error"], record["shadow"]["error"]) == (None, None)
    assert trial.counts() == {"answered": 1}
    # Of the three pairs of documents, one stands in the same order, so tau is -1/3.
    below = {le: trial.registry.get_sample_value(f"{PREFIX}_kendall_tau_bucket", {"le": le}) for le in ("-0.5", "0.0")}
    assert below == {"-0.5": 0, "0.0": 1}


def test_the_shadow_is_asked_for_everything_in_the_bulk_lane_and_decides_by_itself() -> None:
    async def main() -> Trial:
        trial = Trial()
        trial.offer()
        trial.offer(keeps_policy=True)
        await settle()
        return trial

    first, second = (options for _, _, options in asyncio.run(main()).asked)
    assert first == {
        "policy": "the shadow's own",
        "priority": "bulk",
        "top_n": None,
        "score_threshold": None,
        "min_results": 0,
        "server_timings": False,
        "relevant_spans": None,
        "instruction": "Find it.",
        "timeout_s": 5.0,
    }
    assert second == first | {"policy": "strict"}


def stop(trial: Trial) -> None:
    trial.shadow.begin_stopping()


@pytest.mark.parametrize(
    ("reason", "prepare"),
    [
        ("not_ready", lambda trial: setattr(trial.model.health, "state", "degraded")),
        ("busy", lambda trial: setattr(trial.model.limit, "waiting", 1)),
        ("busy", lambda trial: setattr(trial.primary.limit, "waiting", 1)),
        ("busy", lambda trial: setattr(trial.model.limit, "running", 4)),
        ("stopping", stop),
        ("error", lambda trial: setattr(trial.model, "own", None)),  # whatever goes wrong in it
    ],
)
def test_what_stands_in_the_way_drops_the_call_and_is_counted(reason: str, prepare: Callable[[Trial], None]) -> None:
    async def main() -> Trial:
        trial = Trial()
        prepare(trial)
        trial.offer()
        await settle()
        return trial

    trial = asyncio.run(main())
    assert trial.counts() == {reason: 1}
    assert (trial.asked, trial.records) == ([], [])


def test_the_shadows_own_answers_are_no_pairs() -> None:
    async def main() -> Trial:
        trial = Trial()
        trial.offer(by=trial.model)
        await settle()
        return trial

    assert asyncio.run(main()).counts() == {}


def test_so_many_run_at_the_same_time_and_no_more() -> None:
    async def main() -> Trial:
        trial = Trial(forever)
        for _ in range(5):
            trial.offer()
        await settle()
        assert len(trial.asked) == 2
        await trial.shadow.aclose()
        return trial

    assert asyncio.run(main()).counts() == {"running": 3, "stopped": 2}


def test_so_much_is_held_at_the_same_time_and_given_back() -> None:
    async def main() -> Trial:
        trial = Trial()
        large = "x" * (MIB * 2 // 3)
        trial.offer((large,))
        trial.offer((large,))  # too much beside the first, which runs
        await settle()
        trial.offer((large,))
        await settle()
        return trial

    assert asyncio.run(main()).counts() == {"memory": 1, "answered": 2}


def test_images_count_as_their_files_and_are_sent_without_their_pixels() -> None:
    photo = Image.from_bytes(
        Image.from_numpy(np.random.default_rng(0).integers(0, 256, (400, 400, 3), np.uint8)).to_file()
    )
    assert len(photo.to_file()) > MIB / 3

    async def main() -> Trial:
        trial = Trial()
        trial.offer((photo, ImageText(photo, "text")))
        await settle()
        trial.offer((photo, photo, photo))
        await settle()
        return trial

    trial = asyncio.run(main())
    assert trial.counts() == {"answered": 1, "memory": 1}
    ((_, (alone, beside), _),) = trial.asked
    assert alone is not photo
    assert beside.image is not photo
    assert beside.text == "text"
    assert alone.to_file() == beside.image.to_file() == photo.to_file()


def test_a_document_that_cannot_be_used_is_left_out_and_costs_the_caller_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(image_module, "MAX_SIZE_BYTES", 10)

    async def main() -> Trial:
        trial = Trial()
        trial.offer(("a", InvalidInputError("refused"), Image.from_bytes(b"larger than ten bytes")))
        await settle()
        return trial

    trial = asyncio.run(main())
    assert trial.counts() == {"answered": 1}
    ((_, documents, _),) = trial.asked
    assert documents[0] == "a"
    assert all(isinstance(each, InvalidInputError) for each in documents[1:])


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (InferenceError("the model failed"), "failed"),
        (RuntimeError("nobody foresaw it"), "failed"),
        (DeadlineExceededError("too late"), "timeout"),
    ],
)
def test_a_shadow_that_fails_is_a_record_without_a_ranking(error: Exception, outcome: str) -> None:
    async def fail() -> ServiceAnswer:
        raise error

    async def main() -> Trial:
        trial = Trial(fail)
        trial.offer()
        await settle()
        return trial

    trial = asyncio.run(main())
    (record,) = trial.records
    assert trial.counts() == {outcome: 1}
    assert record["shadow"]["error"] == type(error).__name__
    assert "results" not in record["shadow"]
    assert len(record["primary"]["results"]) == 3
    assert trial.registry.get_sample_value(f"{PREFIX}_kendall_tau_count") == 0


def test_a_shadow_that_hangs_is_ended_by_its_own_time() -> None:
    async def main() -> Trial:
        trial = Trial(forever, timeout_s=0.01)
        trial.offer()
        while not trial.records:
            await asyncio.sleep(0.01)
        return trial

    trial = asyncio.run(main())
    assert trial.counts() == {"timeout": 1}
    assert trial.records[0]["shadow"]["error"] == "TimeoutError"


def test_a_shadow_that_finds_no_slot_is_dropped_and_no_pair() -> None:
    async def refuse() -> ServiceAnswer:
        raise TooBusyError("all slots are taken", retry_after_s=1)

    async def main() -> Trial:
        trial = Trial(refuse)
        trial.offer()
        await settle()
        return trial

    trial = asyncio.run(main())
    assert trial.counts() == {"busy": 1}
    assert trial.records == []


def test_stopping_ends_what_runs_also_what_has_not_begun() -> None:
    async def main() -> Trial:
        trial = Trial(forever)
        trial.offer()
        await settle()
        trial.offer()
        trial.shadow.begin_stopping()
        await trial.shadow.aclose()
        trial.offer()
        return trial

    trial = asyncio.run(main())
    assert trial.counts() == {"stopped": 2, "stopping": 1}
    assert trial.records == []


def test_nothing_of_the_request_goes_with_the_call() -> None:
    found: list[str | None] = []

    async def look() -> ServiceAnswer:
        found.append(current_request_id())
        raise LycheeError("seen")

    async def main() -> None:
        trial = Trial(look)
        with use_request_id("of-the-caller"):
            trial.offer()
            await settle()

    asyncio.run(main())
    assert found == [None]

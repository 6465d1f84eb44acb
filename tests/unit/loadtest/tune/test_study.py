"""The staged search, with a stand-in for Triton whose throughput is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest
from lychee_loadtest.tune import study
from lychee_loadtest.tune.choice import Bounds, NoChoiceError
from lychee_loadtest.tune.load import LoadSample, Stream
from lychee_loadtest.tune.progress import Progress
from lychee_loadtest.tune.report import study_lines, to_json
from lychee_loadtest.tune.settings import Settings, current_settings
from lychee_loadtest.tune.study import Effort, Study, study_model
from lychee_loadtest.tune.workloads import read_subject

EFFORT = Effort(seconds=8, rounds=3, delays_us=(0, 2000))
Speed = Callable[[Settings, Stream], float]


class KnownFleet:
    """Serves candidates whose rows per second follow from their settings and the request."""

    speed: Speed
    served: list[Mapping[str, Any]]

    def __init__(self, subject: Any, candidates: Mapping[str, Any], progress: Progress) -> None:
        self.candidates = candidates
        self.served.append(candidates)

    def is_served(self, candidate: str) -> bool:
        return True

    def measure(self, candidate: str, streams: tuple[Stream, ...], window_s: float) -> LoadSample:
        rate = type(self).speed(current_settings(self.candidates[candidate]), streams[-1])
        return LoadSample(rate, (1000 * streams[0].rows / rate,))

    def read_memory_bytes(self, candidate: str) -> int:
        return 2**20

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass


def run(
    repository: Path, monkeypatch: pytest.MonkeyPatch, speed: Speed, cores: int = 4, limits: Bounds | None = None
) -> Study:
    fleet = type("Fleet", (KnownFleet,), {"speed": staticmethod(speed), "served": []})
    monkeypatch.setattr(study, "Fleet", fleet)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(cores)))
    subject = read_subject(repository, "text")
    assert subject is not None
    progress = Progress(lambda line: None, measuring_s=8, starts=2)
    return study_model(subject, EFFORT, limits or Bounds(), progress)


def saturating(settings: Settings, stream: Stream) -> float:
    """Return a rate that grows up to 16 rows of 16 tokens or 8 of 64, with two instances, and falls with the delay."""
    rate = 1000.0 * min(stream.rows, 16 if stream.workload.row_elements == 16 else 8)
    bonus = 1.5 if settings.instances == 2 else 1.0
    return rate * bonus / (1 + settings.delay_us / 10_000)


def test_each_stage_builds_on_the_one_before(dual_repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = run(dual_repository, monkeypatch, saturating)
    assert [curve.chosen.rows for curve in found.curves] == [16, 8]
    assert found.settings == Settings(batches=(8, 16), max_run_elements=512, instances=2, threads=2, delay_us=0)
    assert any(reason.startswith("instances: 2 instances with 2 threads") for reason in found.reasons)
    assert any(reason.startswith("queue delay: 0 ms; 2 ms loses 17 %") for reason in found.reasons)


def test_a_delay_that_fills_batches_is_taken(dual_repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = run(dual_repository, monkeypatch, lambda settings, stream: 100.0 + settings.delay_us / 100)
    assert found.settings.delay_us == 2000


def test_a_configuration_that_is_better_as_it_is_stays(dual_repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def best_without_preference(settings: Settings, stream: Stream) -> float:
        return 100.0 if settings.batches else 200.0

    found = run(dual_repository, monkeypatch, best_without_preference)
    assert found.settings == current_settings(found.subject.config)
    assert found.reasons[-1].startswith("kept as in config.pbtxt")


def test_one_core_has_nothing_to_share(dual_repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = run(dual_repository, monkeypatch, saturating, cores=1)
    assert (found.settings.instances, found.settings.threads) == (1, 0)
    assert "instances: 1 instance with all cores; nothing else to try on this machine" in found.reasons


def test_limits_that_no_batch_meets_name_the_shape(dual_repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NoChoiceError, match=r"No batch size of 16 tokens .*its 1 MiB are above 0 MiB"):
        run(dual_repository, monkeypatch, saturating, limits=Bounds(memory_bytes=1))


def test_the_report_has_every_point_and_marks_the_choice(
    dual_repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = run(dual_repository, monkeypatch, saturating)
    lines = study_lines(found)
    assert [line.split()[:2] for line in lines if line.endswith("<")] == [["batch", "16"], ["batch", "8"]]
    assert lines[-1] == "  noise: 0% between the rounds of a setting"
    content = to_json([found], {"cores": 4}, "tuned", "tiny", EFFORT, Bounds(latency_ms=50))
    assert content["format"] == 1
    assert content["latency_limit_ms"] == 50
    (model,) = content["models"]
    assert [point["rows"] for point in model["curves"][1]["batches"]] == [1, 2, 4, 8, 16, 32]
    assert model["settings"]["batches"] == (8, 16)


def test_a_loud_machine_is_reported(dual_repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = iter(range(10_000))
    found = run(dual_repository, monkeypatch, lambda settings, stream: 100.0 + 37 * (next(calls) % 5))
    assert "repeat this on a quiet machine" in study_lines(found)[-1]

"""Service-level limits: nothing passes because it was not measured, or because its name has a typing error."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from lychee_loadtest.locust import limits as limits_module
from lychee_loadtest.locust.limits import LimitsError, check_limits, read_limits
from lychee_loadtest.locust.run_record import known_names
from lychee_loadtest.results.results import CallStatistics, GeneratorHealth, LoadTestResults

INTERACTIVE = CallStatistics("interactive", 90, 8, 2, 900, 9.0, 90.0, 50.0, 80.0, 120.0, 300.0)
BULK = CallStatistics("bulk", 0, 1, 0, 0, 0.0, 0.0, None, None, None, None)
HEALTH = GeneratorHealth(1, 0.2, 12.0, 40.0, 0.3, 0.5, arrivals=50, arrivals_waited=5, arrivals_unserved=1)
RESULTS = LoadTestResults({}, "", 10.0, {}, (), (INTERACTIVE, BULK), (), (), HEALTH)


def read(folder: Path, text: str) -> dict[str, bool]:
    """Return for each limit whether it was met."""
    path = folder / "limits.toml"
    path.write_text(text, encoding="utf-8")
    verdicts = check_limits(read_limits(path, known_names()), RESULTS)
    return {f"{verdict.subject} {verdict.measure}": verdict.met for verdict in verdicts}


@pytest.mark.parametrize(
    ("line", "met"),
    [
        ("p50_ms = 50", True),
        ("p50_ms = 49", False),
        ("p99_ms = 120", True),
        ("p99_ms = 119", False),
        ("max_ms = 299", False),
        ("failure_share = 0.08", True),
        ("failure_share = 0.07", False),
        ("overload_share = 0.02", True),
        ("overload_share = 0.01", False),
        ("min_calls = 90", True),
        ("min_calls = 91", False),
        ("min_calls_per_s = 9", True),
        ("min_calls_per_s = 9.1", False),
        ("min_documents_per_s = 90", True),
        ("min_documents_per_s = 91", False),
    ],
)
def test_a_limit_on_calls_holds_up_to_its_value(tmp_path: Path, line: str, met: bool) -> None:
    assert list(read(tmp_path, f'[calls."interactive"]\n{line}\n').values()) == [met]


@pytest.mark.parametrize(
    ("line", "met"),
    [
        ("hub_lag_p99_ms = 12", True),
        ("hub_lag_p99_ms = 11", False),
        ("cpu_share_max = 0.5", True),
        ("cpu_share_max = 0.4", False),
        ("waited_share = 0.1", True),
        ("waited_share = 0.05", False),
        ("unserved_share = 0", False),
        ("lateness_p99_ms = 1000", False),  # nothing was measured
    ],
)
def test_a_limit_on_the_generator_holds_up_to_its_value(tmp_path: Path, line: str, met: bool) -> None:
    assert list(read(tmp_path, f"[generator]\n{line}\n").values()) == [met]


def test_what_was_not_measured_breaks_its_limit(tmp_path: Path) -> None:
    text = '[calls."REST interactive"]\nfailure_share = 1\n[calls."bulk"]\np99_ms = 1e9\nmin_calls = 0\n'
    assert read(tmp_path, text) == {
        "REST interactive failure_share": False,  # there were no such calls
        "bulk p99_ms": False,  # none was answered
        "bulk min_calls": True,
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no limit"),
        ("p99_ms = 5", "no section 'p99_ms'"),
        ("[call]\n", "no section 'call'"),
        ('[calls."interactve"]\np99_ms = 5', "'interactve'"),
        ('[calls."HTTP interactive/video"]\np99_ms = 5', "video"),
        ('[calls."interactive"]\np999_ms = 5', "'p999_ms'"),
        ('[calls."interactive"]\nmin_p99_ms = 5', "'min_p99_ms'"),
        ("[generator]\ncpu = 5", "'cpu'"),
        ("[generator]\ncpu_share_max = '0.9'", "is '0.9'; expected a number"),
        ("[generator]\ncpu_share_max = true", "is True; expected a number"),
        ("[generator]\ncpu_share_max = -1", "is -1; expected a number"),
        ("[generator]\ncpu_share_max = nan", "is nan; expected a number"),
        ("calls = 5", "expected a section"),
        ("[generator", "cannot be read"),
    ],
)
def test_a_file_that_limits_nothing_known_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "limits.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(LimitsError) as caught:
        read_limits(path, known_names())
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LimitsError, match="cannot be read"):
        read_limits(tmp_path / "none.toml", known_names())


def test_limits_of_the_smoke_can_be_read_and_ask_for_every_transport_and_lane() -> None:
    limits = read_limits(Path(limits_module.__file__).parent / "smoke.toml", known_names())
    subjects = " ".join(limit.subject for limit in limits)
    assert all(word in subjects for word in ("gRPC", "HTTP", "REST", "interactive", "bulk", "generator"))
    assert not all(verdict.met for verdict in check_limits(limits, replace(RESULTS, sums=())))

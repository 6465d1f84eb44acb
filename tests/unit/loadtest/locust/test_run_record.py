"""Results made of what the processes recorded."""

from __future__ import annotations

import json

import pytest
from lychee_loadtest.locust.arrivals import ArrivalCounts
from lychee_loadtest.locust.generator import HubUse
from lychee_loadtest.locust.recorder import CallKind, Recorder
from lychee_loadtest.locust.run_record import RunRecord, known_names
from lychee_loadtest.locust.shapes import Stage, plan_shape
from lychee_loadtest.results.results import LoadTestResults

BEGAN_S = 1000.0
TEXT = CallKind("gRPC", "interactive", "text")
IMAGE = CallKind("REST", "interactive", "image")
BULK = CallKind("gRPC", "bulk", "text")


def make_record(duration_s: float = 20.0, stages: tuple[Stage, ...] | None = None) -> RunRecord:
    record = RunRecord(Recorder(window_s=5.0))
    record.begin(stages or plan_shape("constant", duration_s, 1), None)
    record._began_s, record._ended_s = BEGAN_S, BEGAN_S + duration_s
    return record


def results_of(record: RunRecord) -> LoadTestResults:
    return record.results({})


def test_calls_are_summed_by_name_lane_and_transport() -> None:
    record = make_record()
    for latency_ms in (100.0, 200.0):
        record.calls.record(BEGAN_S + 1, TEXT, "answered", latency_ms, 10)
    record.calls.record(BEGAN_S + 1, IMAGE, "answered", 50.0, 2)
    record.calls.record(BEGAN_S + 1, IMAGE, "failed", 9999.0, 2)
    record.calls.record(BEGAN_S + 1, IMAGE, "overloaded", 1.0, 2)
    results = results_of(record)
    sums = {entry.name: entry for entry in results.sums}
    assert [entry.name for entry in results.names] == ["REST interactive/image", "gRPC interactive/text"]
    assert set(sums) == {"all", "interactive", "REST interactive", "gRPC interactive"}
    assert set(sums) | {entry.name for entry in results.names} <= set(known_names())
    assert (sums["all"].calls, sums["all"].failures, sums["all"].overloads, sums["all"].attempts) == (3, 1, 1, 5)
    assert (sums["all"].documents, sums["all"].documents_per_s) == (22, pytest.approx(22 / 20))
    assert sums["interactive"].max_ms == 200.0  # of answers: a failure has no latency
    assert sums["REST interactive"].p50_ms == 50.0


def test_windows_have_rates_and_users_of_their_time() -> None:
    record = make_record(20.0)
    record.users = {200: 1, 201: 2, 202: 3, 203: 4}
    for time_s in (1.0, 2.0, 11.0):
        record.calls.record(BEGAN_S + time_s, TEXT, "answered", 10.0, 5)
    windows = results_of(record).windows
    assert [(window.start_s, window.duration_s, window.users) for window in windows] == [
        (0.0, 5.0, 1),
        (5.0, 5.0, 2),
        (10.0, 5.0, 3),
        (15.0, 5.0, 4),
    ]
    assert [[lane.calls_per_s for lane in window.lanes] for window in windows] == [[0.4], [], [0.2], []]


def test_documents_of_a_long_call_belong_to_the_windows_in_which_it_ran() -> None:
    record = make_record(20.0)
    record.calls.record(BEGAN_S + 17.5, BULK, "answered", 10_000.0, 1000)
    results = results_of(record)
    rates = [[lane.documents_per_s for lane in window.lanes] for window in results.windows]
    assert rates == [[], [pytest.approx(50)], [pytest.approx(100)], [pytest.approx(50)]]
    assert [[lane.calls for lane in window.lanes] for window in results.windows] == [[], [0], [0], [1]]
    (total,) = results.names
    assert (total.documents, total.calls) == (1000, 1)


def test_steps_leave_out_the_windows_in_which_the_load_changed() -> None:
    record = make_record(24.0, plan_shape("step", 24.0, 2))  # the second step begins in the third window
    for time_s, latency_ms in ((1.0, 10.0), (6.0, 20.0), (11.0, 999.0), (16.0, 30.0)):
        record.calls.record(BEGAN_S + time_s, TEXT, "answered", latency_ms, 1)
    first, second = results_of(record).steps
    assert (first.start_s, first.duration_s, first.lanes[0].calls, first.lanes[0].max_ms) == (0.0, 10.0, 2, 20.0)
    assert (second.start_s, second.duration_s, second.lanes[0].calls, second.lanes[0].max_ms) == (15.0, 5.0, 1, 30.0)


def test_a_call_that_ends_after_the_run_counts_and_so_does_its_time() -> None:
    record = make_record(20.0)
    record.calls.record(BEGAN_S + 39.0, BULK, "answered", 30_000.0, 1000)
    (entry,) = results_of(record).names
    assert entry.documents_per_s == pytest.approx(1000 / 40)


def test_records_of_worker_processes_are_put_together() -> None:
    master, worker, alone = make_record(), Recorder(5.0), make_record()
    for recorder in (worker, alone.calls):
        recorder.record(BEGAN_S + 1, TEXT, "answered", 80.0, 3)
        recorder.record(BEGAN_S + 2, TEXT, "failed", 80.0, 3)
        recorder.messages["gRPC interactive/text: it broke"] += 1
    master.calls.add(json.loads(json.dumps(worker.take())))
    master.calls.add(json.loads(json.dumps(worker.take())))  # nothing comes twice
    assert results_of(master) == results_of(alone)
    assert results_of(master).messages == {"gRPC interactive/text: it broke": 1}


def test_the_busiest_process_stands_for_the_generator() -> None:
    record = make_record()
    idle, busy = HubUse(cpu_shares=[0.1, 0.1]), HubUse(cpu_shares=[0.5, 0.9])
    idle.add_lag(0.001)
    busy.add_lag(0.004)
    record.hubs = {"a": idle, "b": busy}
    record.arrivals = {"a": ArrivalCounts(5, 1, 0), "b": ArrivalCounts(6, 2, 3)}
    health = results_of(record).generator
    assert (health.processes, health.cpu_share_mean, health.cpu_share_max) == (2, pytest.approx(0.7), 0.9)
    assert (health.hub_lag_max_ms, health.arrivals, health.arrivals_waited, health.arrivals_unserved) == (4.0, 11, 3, 3)

"""Closed-loop load, against a client that answers at once."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from lychee_loadtest.tune.load import LoadSample, Stream, make_requests, run_load
from lychee_loadtest.tune.workloads import Workload, read_subject
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

WORK = Workload("16 tokens", (("input_ids", (16,)), ("attention_mask", (16,))))


class Waiting:
    """Answers nobody before all callers are there; counts the calls of each request."""

    def __init__(self, callers: int) -> None:
        self.barrier = threading.Barrier(callers, timeout=10)
        self.calls: list[Any] = []

    def infer(self, model: str, inputs: Any, client_timeout: float) -> None:
        self.calls.append(inputs)
        self.barrier.wait()


class Failing:
    """Refuses."""

    def infer(self, model: str, inputs: Any, client_timeout: float) -> None:
        raise InferenceServerException("queue is full")


def test_all_streams_are_in_flight_together_and_the_first_ones_latencies_count() -> None:
    client = Waiting(callers=4)
    singles, bulk = Stream(WORK, 1, 3), Stream(WORK, 8, 1)
    streams = [(singles, [["a"], ["b"], ["c"]]), (bulk, [["bulk"]])]
    sample = run_load(cast(InferenceServerClient, client), "text_encoder", streams, 0)
    assert sorted(map(str, client.calls)) == ["['a']", "['b']", "['bulk']", "['c']"]
    assert len(sample.latencies_ms) == 3
    assert sample.rows_per_s > 0


def test_rows_per_second_count_until_the_last_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.0, 0.0, 2.0])  # started, sent, answered
    monkeypatch.setattr(time, "perf_counter", lambda: next(times))
    client = cast(InferenceServerClient, Waiting(callers=1))
    sample = run_load(client, "text_encoder", [(Stream(WORK, 8, 1), [["bulk"]])], 1.0)
    assert sample == LoadSample(rows_per_s=4.0, latencies_ms=(2000.0,))


def test_a_refused_request_is_an_error() -> None:
    with pytest.raises(InferenceServerException, match="queue is full"):
        run_load(cast(InferenceServerClient, Failing()), "text_encoder", [(Stream(WORK, 1, 2), [["a"]])], 0)


def test_requests_differ_and_have_the_models_types(dual_repository: Path) -> None:
    subject = read_subject(dual_repository, "text")
    assert subject is not None
    requests = make_requests(subject.config, Stream(subject.workloads[0], 3, 1), seed=0)
    contents = {request[0]._get_content() for request in requests}
    assert len(contents) == len(requests) > 1
    assert [tensor.datatype() for tensor in requests[0]] == ["INT64", "INT64"]
    assert len(requests[0][0]._get_content()) == 3 * 16 * np.int64().nbytes

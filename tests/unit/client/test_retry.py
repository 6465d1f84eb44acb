"""What is sent again, how often, and how soon."""

from __future__ import annotations

import pytest
from fakes.dual_encoder import FakeTransport
from lychee_client import (
    ConfigurationError,
    ConnectionFailedError,
    DeadlineExceededError,
    InferenceError,
    LycheeClient,
    LycheeError,
    ModelNotReadyError,
    RequestRejectedError,
    ServerOverloadedError,
)
from lychee_client._retry import FIRST_CEILING_S, MAX_CEILING_S, RetryPolicy
from lychee_client.transports.base import Ambiguity, ControlRequest, InferRequest, Request, TransportError


class Failing:
    """Fails the first requests to a model, and answers probes as told."""

    def __init__(self, kind: type[LycheeError] | Ambiguity, failures: int, probe: bool = True) -> None:
        self.kind, self.failures, self.probe = kind, failures, probe
        self.attempts = 0

    def __call__(self, request: Request) -> object:
        if isinstance(request, ControlRequest):
            return {"ready": self.probe}
        if isinstance(request, InferRequest) and request.model_name == "scoring_head_text":
            self.attempts += 1
            if self.attempts <= self.failures:
                raise TransportError(self.kind, "STATUS", "the details", "id-1")
        return None


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lychee_client._retry.FIRST_CEILING_S", 0.0)


@pytest.mark.parametrize("kind", [ConnectionFailedError, Ambiguity.OVERLOADED_OR_GONE, InferenceError])
def test_what_may_pass_is_sent_again(kind: type[LycheeError] | Ambiguity) -> None:
    failing = Failing(kind, failures=2)
    with LycheeClient(transport=FakeTransport(failing)) as client:
        assert len(client.rerank("q", ["a"]).results) == 1
    assert failing.attempts == 3


@pytest.mark.parametrize(
    ("kind", "probe", "expected", "attempts"),
    [
        (Ambiguity.OVERLOADED_OR_GONE, True, ServerOverloadedError, 3),
        (Ambiguity.OVERLOADED_OR_GONE, False, ConnectionFailedError, 3),
        (ConnectionFailedError, True, ConnectionFailedError, 3),
        (Ambiguity.REJECTED_OR_NOT_READY, False, ModelNotReadyError, 3),
        (InferenceError, True, InferenceError, 3),
        (DeadlineExceededError, True, DeadlineExceededError, 1),
    ],
)
def test_retries_end_with_the_exception_that_the_probe_settles(
    kind: type[LycheeError] | Ambiguity, probe: bool, expected: type[LycheeError], attempts: int
) -> None:
    failing = Failing(kind, failures=99, probe=probe)
    with LycheeClient(transport=FakeTransport(failing)) as client, pytest.raises(LycheeError) as caught:
        client.rerank("q", ["a"])
    error = caught.value
    assert (type(error), failing.attempts) == (expected, attempts)
    assert (error.model_name, error.request_id) == ("scoring_head_text", "id-1")
    assert isinstance(error.__cause__, TransportError)


def test_what_was_refused_is_not_sent_again() -> None:
    failing = Failing(Ambiguity.REJECTED_OR_NOT_READY, failures=99)
    client = LycheeClient(transport=FakeTransport(failing))
    with client, pytest.raises(RequestRejectedError, match="the details"):
        client.rerank("q", ["a"])
    assert failing.attempts == 1


@pytest.mark.parametrize("max_retries", [0, 1, 5])
def test_number_of_retries_is_the_clients(max_retries: int) -> None:
    failing = Failing(ConnectionFailedError, failures=99)
    client = LycheeClient(transport=FakeTransport(failing), max_retries=max_retries)
    with client, pytest.raises(ConnectionFailedError):
        client.rerank("q", ["a"])
    assert failing.attempts == max_retries + 1


def test_retry_that_would_outlast_the_deadline_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lychee_client._retry.FIRST_CEILING_S", 60.0)
    monkeypatch.setattr("lychee_client._retry.MAX_CEILING_S", 60.0)
    monkeypatch.setattr("lychee_client._base_client.RetryPolicy", lambda retries: RetryPolicy(retries, max))
    failing = Failing(ConnectionFailedError, failures=99)
    with LycheeClient(transport=FakeTransport(failing)) as client, pytest.raises(ConnectionFailedError):
        client.rerank("q", ["a"], timeout_s=5)
    assert failing.attempts == 1


def test_pauses_grow_to_a_cap_and_are_random_below_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    highest = RetryPolicy(8, uniform=lambda low, high: high)
    pauses = [highest.pause_s(retries) for retries in range(9)]
    assert pauses[:5] == [pytest.approx(FIRST_CEILING_S * factor) for factor in (1, 2, 4, 8, 16)]
    assert pauses[5:8] == [MAX_CEILING_S] * 3
    assert pauses[8] is None
    assert RetryPolicy(8, uniform=lambda low, high: low).pause_s(7) == 0.0
    drawn = {RetryPolicy(8).pause_s(2) for _ in range(20)}
    assert len(drawn) == 20
    assert max(pause or 0 for pause in drawn) <= 4 * FIRST_CEILING_S


@pytest.mark.parametrize("max_retries", [-1, True, "2", None])
def test_bad_number_of_retries_is_refused(max_retries: int) -> None:
    with pytest.raises(ConfigurationError, match="max_retries"):
        RetryPolicy(max_retries)

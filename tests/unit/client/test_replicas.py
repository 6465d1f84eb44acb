"""The rules of replicas, with transports that answer when the test says so, and a clock that the test moves."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import Any

import numpy as np
import pytest
from lychee_client import ConnectionFailedError, InferenceError, RequestRejectedError
from lychee_client.transports.addresses import Address, Resolver, is_name, split_target
from lychee_client.transports.base import (
    Ambiguity,
    ControlRequest,
    InferRequest,
    InferResponse,
    JsonRequest,
    JsonResponse,
    Request,
    TransportError,
)
from lychee_client.transports.replicas import Replicas

REQUEST = InferRequest("model", {"input_ids": np.zeros((1, 4), np.int64)}, ("score",))
RERANK = JsonRequest("POST", "/v1/rerank", b"{}")
FEEDBACK = JsonRequest("POST", "/v1/feedback", b"{}", once=True)
ANSWER = InferResponse({})
TARGETS = ("10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1")


def failure(
    kind: Any, status: str | None = None, *, http_status: int | None = None, unsent: bool = False
) -> TransportError:
    error = TransportError(kind, status, "details", "id")
    error.unsent = unsent
    if http_status is not None:
        error.response = JsonResponse(http_status, None, {})
    return error


def lost() -> TransportError:
    return failure(ConnectionFailedError, unsent=True)


class FakeReplica:
    """Answers probes by itself, and everything else when it is told to, or at once if it has an answer.

    Attributes:
        waiting: The requests that were not answered, oldest first.
        probes: What was asked.
        answer: Returns what is answered at once; None waits.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        self.ready: Any = True
        self.answer: Callable[[Request], object] = lambda request: None
        self.waiting: list[tuple[Request, Future[Any]]] = []
        self.probes: list[Future[Any]] = []
        self.requests: list[Request] = []
        self.closed = False

    def send(self, request: Request, timeout_s: float | None) -> Future[Any]:
        future: Future[Any] = Future()
        if request == ControlRequest("ready"):
            self.probes.append(future)
            if self.ready is not None:
                settle(future, self.ready if isinstance(self.ready, Exception) else {"ready": self.ready})
            return future
        self.requests.append(request)
        outcome = self.answer(request)
        if outcome is None:
            self.waiting.append((request, future))
        else:
            settle(future, outcome)
        return future

    def reply(self, outcome: object = ANSWER) -> None:
        settle(self.waiting.pop(0)[1], outcome)

    def close(self, farewell: Request | None = None) -> None:
        self.closed = True
        for _, future in self.waiting:
            future.cancel()


def settle(future: Future[Any], outcome: object) -> None:
    if future.cancelled():
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)


class World:
    """Replicas on a fake clock.

    Attributes:
        fakes: All transports that were made, oldest first, by target.
        now_s: What the clock tells.
    """

    def __init__(self, *targets: str) -> None:
        self.fakes: dict[str, list[FakeReplica]] = {}
        self.now_s = 100.0
        self.replicas = Replicas(targets, self.make, clock=lambda: self.now_s, has_thread=False)

    def make(self, address: Address) -> FakeReplica:
        fake = FakeReplica(address)
        self.fakes.setdefault(str(address), []).append(fake)
        return fake

    def __getitem__(self, number: int) -> FakeReplica:
        """Return the newest transport of a replica."""
        return self.fakes[TARGETS[number]][-1]

    def send(self, request: Request = REQUEST, timeout_s: float | None = 10.0) -> Future[Any]:
        return self.replicas.send(request, timeout_s)

    def pass_time(self, seconds: float) -> None:
        until_s = self.now_s + seconds
        while self.now_s < until_s - 1e-9:
            self.now_s = min(until_s, self.now_s + 0.05)
            self.replicas.care.tick()

    def states(self) -> list[str]:
        return [status.state for status in self.replicas.statuses()]

    def holder(self) -> int:
        """Return which replica has a request that waits."""
        (number,) = [number for number in range(len(self.fakes)) if self[number].waiting]
        return number

    def serve(self, count: int, took_s: float = 0.01) -> list[int]:
        """Have so many requests answered, one after the other; return how many each replica got."""
        before = [len(self[number].requests) for number in range(len(self.fakes))]
        for _ in range(count):
            future = self.send()
            self.now_s += took_s
            for number in range(len(self.fakes)):
                while self[number].waiting:
                    self[number].reply()
            assert future.result(0) is ANSWER
        return [len(self[number].requests) - before[number] for number in range(len(self.fakes))]


@pytest.fixture
def world() -> World:
    """Return three replicas that are live."""
    world = World(*TARGETS)
    world.replicas.care.tick()
    assert world.states() == ["live"] * 3
    return world


def test_first_requests_wait_until_a_replica_has_answered() -> None:
    world = World(*TARGETS)
    for number in range(3):
        world[number].ready = None
    future = world.send()
    world.replicas.care.tick()
    assert not any(world[number].requests for number in range(3))
    settle(world[1].probes[0], {"ready": True})
    assert world[1].requests == [REQUEST]
    world[1].reply()
    assert future.result(0) is ANSWER


def test_failure_of_all_reaches_the_caller_as_one_server_would_tell_it() -> None:
    world = World(*TARGETS)
    for number in range(3):
        world[number].ready = lost()
        world[number].answer = lambda request: lost()
    future = world.send()
    world.replicas.care.tick()
    error = future.exception(0)
    assert isinstance(error, TransportError)
    assert error.kind is ConnectionFailedError
    assert [len(world[number].requests) for number in range(3)] == [1, 1, 1]


def test_idle_replicas_share_the_requests(world: World) -> None:
    assert all(count > 50 for count in world.serve(300))


def test_busy_replica_gets_no_more_than_the_others(world: World) -> None:
    for _ in range(30):
        world.send()
    assert [len(world[number].waiting) for number in range(3)] == [10, 10, 10]


def test_slow_replica_is_avoided_and_measured_by_copies(world: World) -> None:
    def serve(count: int, slow_s: float) -> tuple[int, list[float]]:
        slow, took = 0, []
        for _ in range(count):
            future, began_s = world.send(), world.now_s
            world.now_s += 0.01
            for number in (1, 2):
                while world[number].waiting:
                    world[number].reply()
            if not future.done():
                slow += 1
                world.now_s += max(0.0, slow_s - 0.01)
                world[0].reply()
            took.append(world.now_s - began_s)
            if world[0].waiting:  # a copy, for which nobody waits
                world.now_s += slow_s
                world[0].reply()
        return slow, took

    assert serve(20, 0.1)[0] > 0
    before = len(world[0].requests)
    slow, took = serve(1000, 0.1)
    assert slow <= 3  # while it is learned what is usual
    assert sorted(took)[989] < 0.02
    assert 1 < len(world[0].requests) - before <= 60
    slow, _ = serve(1000, 0.005)
    assert slow > 100  # it is fast again


def test_lost_connection_sends_the_request_elsewhere_and_leaves_the_replica_out(world: World) -> None:
    future = world.send()
    gone = world.holder()
    world[gone].ready = lost()
    world[gone].reply(lost())
    assert world.states()[gone] == "lost"
    world[world.holder()].reply()
    assert future.result(0) is ANSWER
    assert world.serve(50)[gone] == 0
    assert world.replicas.sent_again()["failed"] == 1


def test_lost_replica_is_asked_with_growing_pauses_and_comes_back(world: World) -> None:
    world.send()
    gone = world.holder()
    world[gone].ready = lost()
    world[gone].reply(lost())
    world.pass_time(10)
    assert 5 <= len(world[gone].probes) <= 12
    world[gone].ready = True
    world.pass_time(2.1)
    assert world.states()[gone] == "live"
    assert world.serve(60)[gone] > 5


def test_replica_that_is_not_ready_is_left_out(world: World) -> None:
    future = world.send(RERANK)
    stops = world.holder()
    world[stops].ready = False
    world[stops].reply(failure(ConnectionFailedError, "503", http_status=503))
    world[world.holder()].reply()
    assert future.result(0) is ANSWER
    assert world.states()[stops] == "not ready"
    assert world.serve(30)[stops] == 0


def test_request_that_finds_no_room_is_sent_to_one_other_replica_at_most(world: World) -> None:
    future = world.send()
    full = failure(Ambiguity.OVERLOADED_OR_GONE, "UNAVAILABLE")
    for number in range(3):
        world[number].answer = lambda request: full
    world[world.holder()].reply(full)
    assert future.exception(0) is full
    asked = sum(len(world[number].requests) for number in range(3))
    assert world.send().exception(0) is full
    assert sum(len(world[number].requests) for number in range(3)) == asked + 1  # all have just refused
    assert world.states() == ["live"] * 3


def test_refusal_is_final_where_the_replica_has_the_model(world: World) -> None:
    future = world.send()
    asked = world[world.holder()]
    asked.answer = lambda request: {"ready": True}
    refusal = failure(Ambiguity.REJECTED_OR_NOT_READY, "INVALID_ARGUMENT")
    asked.reply(refusal)
    assert future.exception(0) is refusal
    assert world.replicas.sent_again()["failed"] == 0


def test_model_that_a_replica_lacks_is_asked_for_elsewhere(world: World) -> None:
    future = world.send()
    older = world.holder()
    world[older].answer = lambda request: {"ready": False} if isinstance(request, ControlRequest) else None
    world[older].reply(failure(Ambiguity.REJECTED_OR_NOT_READY, "NOT_FOUND"))
    assert world[older].requests[-1] == ControlRequest("model_ready", "model")
    world[world.holder()].reply()
    assert future.result(0) is ANSWER
    assert world.serve(30)[older] == 0  # it is remembered
    world.pass_time(6)
    assert world.serve(60)[older] > 0  # and forgotten


def test_model_that_nobody_has_is_refused_in_the_replicas_words(world: World) -> None:
    refusal = failure(Ambiguity.REJECTED_OR_NOT_READY, "NOT_FOUND")
    for number in range(3):
        world[number].answer = lambda request: {"ready": False} if isinstance(request, ControlRequest) else refusal
    assert world.send().exception(0) is refusal
    assert world.send(ControlRequest("model_ready", "model")).result(0) == {"ready": False}
    assert world.states() == ["live"] * 3


def test_model_that_only_a_lost_replica_had_is_refused_by_those_that_are_there(world: World) -> None:
    refusal = failure(Ambiguity.REJECTED_OR_NOT_READY, "NOT_FOUND")
    for number in (0, 1):
        world[number].answer = lambda request: {"ready": False} if isinstance(request, ControlRequest) else refusal
    world[2].ready = lost()
    world[2].answer = lambda request: lost()
    for _ in range(5):  # again and again: what the replicas lack is remembered
        assert world.send().exception(0) is refusal


def test_failed_computation_is_tried_once_elsewhere(world: World) -> None:
    future = world.send()
    broken = world.holder()
    world[broken].reply(failure(InferenceError, "INTERNAL"))
    world[world.holder()].reply()
    assert future.result(0) is ANSWER
    assert world.serve(30)[broken] == 0  # the replica was to blame
    poison = failure(InferenceError, "INTERNAL")
    before = sum(len(world[number].requests) for number in range(3))
    for number in range(3):
        world[number].answer = lambda request: poison
    assert world.send().exception(0) is poison
    assert sum(len(world[number].requests) for number in range(3)) == before + 2


def test_other_errors_are_the_callers(world: World) -> None:
    future = world.send()
    refused = failure(RequestRejectedError, "RESOURCE_EXHAUSTED")
    world[world.holder()].reply(refused)
    assert future.exception(0) is refused


@pytest.mark.parametrize("unsent", [True, False])
def test_feedback_is_repeated_only_if_it_never_arrived(world: World, unsent: bool) -> None:
    future = world.send(FEEDBACK)
    world[world.holder()].reply(failure(ConnectionFailedError, unsent=unsent))
    assert future.done() is not unsent
    assert sum(len(world[number].requests) for number in range(3)) == 1 + unsent


def test_frozen_replica_is_asked_and_its_requests_are_sent_elsewhere(world: World) -> None:
    world.serve(50)
    future = world.send()
    frozen = world.holder()
    world[frozen].ready = None
    world.pass_time(0.25)
    assert world.states()[frozen] == "silent"
    world.pass_time(0.5)
    assert world.replicas.sent_again()["slow"] == 1  # to one other, and not to a third
    other = next(number for number in range(3) if world[number].waiting and number != frozen)
    world[other].reply()
    assert future.result(0) is ANSWER
    assert world[frozen].waiting[0][1].cancelled()  # nobody waits for it any more
    assert world.serve(50)[frozen] == 0


def test_callers_that_give_up_soon_still_find_out_that_a_replica_is_frozen(world: World) -> None:
    world.serve(50)
    future = world.send(timeout_s=0.1)
    frozen = world.holder()
    world[frozen].ready = None
    world.pass_time(0.1)
    future.cancel()
    world.pass_time(0.05)
    assert world.states()[frozen] == "silent"
    assert world.serve(30)[frozen] == 0


def test_caller_that_gives_up_at_once_says_nothing_about_the_replica(world: World) -> None:
    world.serve(50)
    world.send().cancel()
    assert world.states() == ["live"] * 3


def test_replica_that_computes_for_long_and_answers_a_probe_keeps_its_request(world: World) -> None:
    world.serve(50)
    future = world.send()
    busy = world.holder()
    world.pass_time(0.9)
    assert world.replicas.sent_again()["slow"] == 0
    assert len(world[busy].probes) > 1
    world[busy].reply()
    assert future.result(0) is ANSWER


def test_model_that_hangs_in_a_live_replica_is_asked_elsewhere_in_the_end(world: World) -> None:
    world.serve(50)
    world.send()
    stuck = world.holder()
    for _ in range(30):
        world.pass_time(0.05)
        world.send()
        for number in range(3):
            while number != stuck and world[number].waiting:
                world[number].reply()
    assert world.replicas.sent_again()["slow"] == 1
    assert world.states()[stuck] in ("live", "silent")


def test_all_slow_at_once_is_load_and_no_reason_to_send_anything_twice(world: World) -> None:
    world.serve(50)
    for _ in range(30):
        world.send()
    world.pass_time(3)
    assert world.replicas.sent_again()["slow"] == 0


def test_share_of_requests_that_are_sent_twice_is_bounded(world: World) -> None:
    world.serve(20)
    for _ in range(300):
        world.send()
    world[0].ready = None
    for number in (1, 2):
        while world[number].waiting:
            world[number].reply()
    world.now_s += 1.0
    world.pass_time(0.3)
    for number in (1, 2):
        while world[number].waiting:
            world[number].reply()
    world.pass_time(0.5)
    assert 0 < world.replicas.sent_again()["slow"] <= 20 + 0.1 * 320


def test_connection_that_leaves_a_probe_unanswered_is_replaced(world: World) -> None:
    world.serve(50)
    future = world.send()
    frozen = world.holder()
    world[frozen].ready = None
    old = world[frozen]
    world.pass_time(3)
    assert old.closed
    assert world[frozen] is not old
    for number in range(3):
        while number != frozen and world[number].waiting:
            world[number].reply()
    assert future.result(0) is ANSWER
    world[frozen].ready = True
    world.pass_time(3)
    assert world.states() == ["live"] * 3


def test_effect_that_waits_for_a_frozen_replica_fails_and_is_not_repeated(world: World) -> None:
    world.serve(50)
    future = world.send(FEEDBACK)
    frozen = world.holder()
    world[frozen].ready = None
    world.pass_time(6)
    error = future.exception(0)
    assert isinstance(error, TransportError)
    assert error.kind is ConnectionFailedError
    fakes = [fake for made in world.fakes.values() for fake in made]
    assert [request for fake in fakes for request in fake.requests].count(FEEDBACK) == 1


def test_cancelled_request_is_cancelled_wherever_it_is(world: World) -> None:
    future = world.send()
    holder = world.holder()
    assert future.cancel()
    assert world[holder].waiting[0][1].cancelled()
    with pytest.raises(CancelledError):
        future.result(0)
    assert world.states() == ["live"] * 3


def test_new_address_gets_requests_once_it_has_answered_and_a_gone_one_none(world: World) -> None:
    world.send()
    old = world.holder()
    kept = [Address(target) for number, target in enumerate(TARGETS) if number != old]
    new = Address("10.0.0.9:1")
    world.replicas.take_addresses([*kept, new])
    fake = world.fakes[str(new)][0]
    for _ in range(10):
        world.send()
    assert not fake.requests
    world.replicas.care.tick()
    for _ in range(30):
        world.send()
    assert fake.requests
    gone = world.fakes[TARGETS[old]][0]
    assert len(gone.requests) == 1
    assert not gone.closed  # it still computes
    gone.reply()
    world.replicas.care.tick()
    assert gone.closed


def test_readiness_is_that_of_the_set(world: World) -> None:
    future = world.send(ControlRequest("live"))
    not_live = world.holder()
    world[not_live].reply({"ready": False})
    world[world.holder()].reply({"ready": True})
    assert future.result(0) == {"ready": True}


def test_statistics_are_the_sum_of_those_that_answer(world: World) -> None:
    def counted(count: int) -> dict[str, Any]:
        return {"model_stats": [{"name": "model", "inference_stats": {"queue": {"count": str(count), "ns": 5}}}]}

    future = world.send(ControlRequest("statistics"))
    world[0].reply(counted(1))
    world[1].reply(counted(2))
    assert not future.done()
    world.pass_time(1.1)
    (model,) = future.result(0)["model_stats"]
    assert model["inference_stats"]["queue"] == {"count": 3, "ns": 10}


def test_one_address_alone_is_asked_nothing() -> None:
    world = World(TARGETS[0])
    future = world.send()
    world[0].reply(lost())
    assert isinstance(future.exception(0), TransportError)
    assert not world[0].probes
    assert world.serve(3) == [3]


def test_second_family_of_a_host_is_used_when_the_first_is_gone() -> None:
    world = World("host.example:1")
    six, four = Address("host.example:1", "fd00::1"), Address("host.example:1", "10.0.0.1")
    world.replicas.take_addresses([six, four])
    world.replicas.care.tick()
    first, second = world.fakes[str(six)][0], world.fakes[str(four)][0]
    for _ in range(10):
        world.send()
    assert len(first.requests) == 10
    assert not second.requests
    first.ready = lost()
    first.reply(lost())
    assert second.requests


def test_close_ends_what_waits(world: World) -> None:
    future = world.send()
    world.replicas.close()
    assert future.cancelled()
    assert all(world[number].closed for number in range(3))
    assert isinstance(world.send().exception(0), TransportError)


def test_names_are_looked_up_in_the_background(monkeypatch: pytest.MonkeyPatch) -> None:
    found, released, taken = ["10.0.0.1", "10.0.0.2"], threading.Event(), threading.Event()
    answers: list[list[Address]] = []

    def getaddrinfo(host: str, port: int, **options: Any) -> list[Any]:
        released.wait(10)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in found]

    def take(addresses: list[Address]) -> None:
        answers.append(addresses)
        taken.set()

    def refresh(now_s: float, *, soon: bool = False) -> list[str]:
        taken.clear()
        resolver.refresh(now_s, soon=soon)
        assert taken.wait(10)
        return [str(address.ip) for address in answers[-1]]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    resolver = Resolver(["triton.example:8001"], take)
    resolver.refresh(0.0)  # does not wait
    assert not answers
    released.set()
    assert taken.wait(10)
    assert answers == [[Address("triton.example:8001", ip) for ip in found]]
    resolver.refresh(4.9)
    found[:] = ["10.0.0.2", "10.0.0.3"]
    assert refresh(5.1) == ["10.0.0.2", "10.0.0.3", "10.0.0.1"]  # one answer may lack it
    assert refresh(5.7, soon=True) == ["10.0.0.2", "10.0.0.3"]


def test_name_that_cannot_be_found_is_left_to_the_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    def getaddrinfo(*_: Any, **__: Any) -> list[Any]:
        raise socket.gaierror("no such name")

    taken: Future[list[Address]] = Future()
    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    Resolver(["triton.example:8001"], taken.set_result).refresh(0.0)
    assert taken.result(10) == [Address("triton.example:8001")]


@pytest.mark.parametrize(
    ("target", "expected", "name"),
    [
        ("a.example:1", ("a.example", 1), True),
        ("a.example", ("a.example", None), True),
        ("localhost:8001", ("localhost", 8001), False),
        ("127.0.0.1:8001", ("127.0.0.1", 8001), False),
        ("[::1]:8001", ("::1", 8001), False),
        ("[::1]", ("::1", None), False),
    ],
)
def test_targets_are_split(target: str, expected: tuple[str, int | None], name: bool) -> None:
    assert split_target(target) == expected
    assert is_name(target) is name

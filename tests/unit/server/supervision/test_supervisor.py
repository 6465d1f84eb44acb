"""What the supervisor does about children that end, hang, or do not get ready."""

from __future__ import annotations

import logging

import pytest
from lychee_server.errors import LycheeServerError
from lychee_server.supervision.policy import RestartPolicy
from lychee_server.supervision.supervisor import Supervisor, _Watched


class FakeChild:
    """Is as it is told to be."""

    def __init__(self, name: str = "triton", *, is_spare: bool = True) -> None:
        self.name, self.is_spare = name, is_spare
        self.starts = 0
        self.ended = False
        self.problem: str | None = None
        self.is_ready = True
        self.hopeless = ""
        self.watched = False

    def start_again(self) -> None:
        self.starts += 1
        self.problem = None

    def end(self) -> None:
        self.ended = True

    def check_ready(self) -> bool:
        if self.hopeless:
            raise LycheeServerError(self.hopeless)
        self.watched = self.is_ready
        return self.is_ready

    def find_problem(self, now_s: float) -> str | None:
        return self.problem

    def stop_watching(self) -> None:
        self.watched = False


@pytest.fixture
def child() -> FakeChild:
    """Return the only child."""
    return FakeChild()


@pytest.fixture
def published() -> list[None]:
    """Count what was published."""
    return []


@pytest.fixture
def supervisor(child: FakeChild, published: list[None]) -> Supervisor:
    """Return a supervisor that gives up at the third failure."""
    return Supervisor([child], start_timeout_s=20, most_restarts=2, publish=lambda: published.append(None))


def watch(child: FakeChild) -> _Watched:
    return _Watched(child, RestartPolicy(2), "starting", 0.0)


def test_a_child_that_ends_starts_again_and_is_counted(
    child: FakeChild, supervisor: Supervisor, published: list[None], caplog: pytest.LogCaptureFixture
) -> None:
    watched = watch(child)
    supervisor.look(watched, 1.0)
    assert (watched.phase, child.watched, supervisor.restarts) == ("running", True, {})
    child.problem = "it ended by signal 9"
    with caplog.at_level(logging.WARNING, logger="lychee_server.supervision"):
        logging.getLogger("lychee_server.supervision").propagate = True
        supervisor.look(watched, 60.0)
        assert (watched.phase, child.watched, child.starts) == ("waiting", False, 0)
        supervisor.look(watched, 60.2)
        watched.since_s = 60.2
        supervisor.look(watched, 66.2)
    assert (watched.phase, child.starts) == ("running", 1)
    restarts = supervisor.restarts["triton"]
    assert (restarts.count, restarts.reason) == (1, "it ended by signal 9")
    assert "triton failed: it ended by signal 9; starting it again" in caplog.text
    assert "triton is back after 6.0 s" in caplog.text
    assert len(published) == 2


def test_a_child_that_does_not_get_ready_is_started_again(child: FakeChild, supervisor: Supervisor) -> None:
    watched = watch(child)
    child.is_ready = False
    supervisor.look(watched, 19.0)
    assert watched.phase == "starting"
    supervisor.look(watched, 21.0)
    assert supervisor.restarts["triton"].reason == "it was not ready 20 s after its start"


def test_a_child_that_fails_too_often_is_given_up_with_the_reason(child: FakeChild, supervisor: Supervisor) -> None:
    watched = watch(child)
    child.hopeless = "text_encoder is not loaded: damaged"
    for now_s in (1.0, 2.0):
        supervisor.look(watched, now_s)
        watched.since_s = now_s
        supervisor.look(watched, now_s)
    with pytest.raises(LycheeServerError, match=r"text_encoder is not loaded: damaged.*2 times within 10 minutes"):
        supervisor.look(watched, 3.0)
    assert child.starts == 2


def fail_often(supervisor: Supervisor, watched: _Watched, child: FakeChild) -> None:
    for _ in range(3):
        child.problem = "gone"
        supervisor.look(watched, 10.0)
        supervisor.look(watched, 1e9)
    supervisor.look(watched, 1e9)


def test_one_of_several_that_fails_too_often_costs_the_others_nothing(published: list[None]) -> None:
    children = [FakeChild("triton a"), FakeChild("triton b"), FakeChild("gateway", is_spare=False)]
    supervisor = Supervisor(children, start_timeout_s=20, most_restarts=2, publish=lambda: published.append(None))
    first, second, third = supervisor._watched
    fail_often(supervisor, first, children[0])
    assert (children[0].starts, children[0].ended, children[0].watched) == (2, True, False)
    assert supervisor.restarts["triton a"].reason == "gone; gave up"
    assert not supervisor.is_running(children[0])
    with pytest.raises(LycheeServerError, match="triton b failed"):
        fail_often(supervisor, second, children[1])
    with pytest.raises(LycheeServerError, match="gateway failed"):
        fail_often(supervisor, third, children[2])

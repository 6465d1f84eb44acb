"""When a process is started again, and when no more."""

from __future__ import annotations

from lychee_server.supervision.policy import WINDOW_S, RestartPolicy


def test_the_delay_grows_while_a_process_keeps_failing() -> None:
    policy = RestartPolicy(most_restarts=8)
    assert [policy.decide(now_s, ran_s=0) for now_s in range(8)] == [0, 1, 2, 4, 8, 16, 30, 30]


def test_a_process_that_ran_for_a_while_starts_at_once() -> None:
    policy = RestartPolicy()
    assert [policy.decide(0, ran_s=0), policy.decide(1, ran_s=0), policy.decide(60, ran_s=30)] == [0, 1, 0]


def test_too_many_restarts_within_the_window_are_the_end() -> None:
    policy = RestartPolicy(most_restarts=2)
    assert policy.decide(0, ran_s=60) == 0
    assert policy.decide(100, ran_s=60) == 0
    assert policy.decide(WINDOW_S, ran_s=60) is None
    assert policy.decide(WINDOW_S + 1, ran_s=60) == 0


def test_no_restart_at_all_can_be_asked_for() -> None:
    assert RestartPolicy(most_restarts=0).decide(0, ran_s=60) is None

"""Replicas are restarted, replaced, added and broken under load: no call fails, and none mixes two models' scores.

The durations are printed (`make chaos` shows them with `-s`); docs/reliability.md has those of one run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import pytest

from chaos.replicas.conftest import GATEWAY_URL, Deployment
from chaos.replicas.deployment import Call, Gateway, Triton, report, url_of, wait_for

pytestmark = [pytest.mark.triton, pytest.mark.slow, pytest.mark.chaos]
HEALTHY_S = 30.0
FAULT_S = 60.0
DRAIN_S = 12.0  # from the end of a replica's address to the end of the replica; clients look for new ones every 10 s
FOUND_WITHIN_S = 10.0
MAX_FACTOR = 5.0  # of the p99 beside the healthy one: generous, because other work may take the cores
SLACK_MS = 1000.0


def check(title: str, calls: Sequence[Call]) -> dict[str, float]:
    """Print what came of calls; none may have failed or have mixed scores."""
    found = report(title, calls)
    assert found["calls"]
    assert (found["failed"], found["mixed"]) == (0, 0)
    return found


def replace(deployment: Deployment, triton: Triton, drain_s: float, second: bool = False) -> None:
    """Take a replica out of service, start it again, and put it back."""
    others = [other for other in deployment.tritons if other is not triton]
    deployment.publish(*others)
    time.sleep(drain_s)
    triton.stop()
    triton.start(deployment.second if second else deployment.first)
    deployment.publish(*deployment.tritons)


@pytest.mark.parametrize("drain_s", [DRAIN_S, 0.0], ids=["drained", "at once"])
def test_no_call_fails_while_replicas_are_restarted_in_turn(deployment: Deployment, drain_s: float) -> None:
    with deployment.callers() as callers:
        began_s = time.monotonic()
        for triton in deployment.tritons:
            replace(deployment, triton, drain_s)
        callers.watch(FOUND_WITHIN_S + 5)
        check(f"rolling restart, {drain_s:g} s to drain", callers.calls(began_s))
        assert all(triton.count_requests() for triton in deployment.tritons)


def test_no_call_meets_two_models_while_replicas_are_upgraded_in_turn(deployment: Deployment) -> None:
    with deployment.callers() as callers:
        for second in (True, False):
            began_s = time.monotonic()
            for triton in deployment.tritons:
                replace(deployment, triton, DRAIN_S, second)
            upgraded = callers.watch(FOUND_WITHIN_S)
            calls = callers.calls(began_s)
            check("rolling upgrade" if second else "rolling rollback", calls)
            assert {call.outcome for call in calls} == {"first", "second"}
            assert {call.outcome for call in upgraded[len(upgraded) // 2 :]} == {"second" if second else "first"}


def test_a_new_replica_gets_requests_within_ten_seconds(deployment: Deployment) -> None:
    with deployment.callers() as callers:
        began_s = time.monotonic()
        deployment.spare.start(deployment.first)
        try:
            deployment.publish(*deployment.tritons, deployment.spare)
            published_s = time.monotonic()
            wait_for(deployment.spare.count_requests, "a request for the new replica")
            print(f"new replica: first request after {time.monotonic() - published_s:.1f} s")
            assert time.monotonic() - published_s < FOUND_WITHIN_S + 5  # to ask for its count takes time as well
        finally:
            deployment.publish(*deployment.tritons)
            time.sleep(DRAIN_S)
            deployment.spare.stop()
        check("new replica, and gone again", callers.calls(began_s))


def unreachable(triton: Triton) -> AbstractContextManager[None]:
    """Let no packet to a replica or from it."""
    return triton.network.unreachable(triton.name)


FAULTS = {"frozen": Triton.frozen, "unreachable": unreachable, "slow": Triton.slow}


@pytest.mark.parametrize("fault", FAULTS)
def test_calls_go_to_the_other_replicas(deployment: Deployment, fault: str) -> None:
    hurt: Callable[[Triton], AbstractContextManager[None]] = FAULTS[fault]
    with deployment.callers() as callers:
        callers.watch(5)
        healthy = check("healthy", callers.watch(HEALTHY_S))
        with hurt(deployment.tritons[0]):
            broken = check(f"one {fault}", callers.watch(FAULT_S))
        check(f"after one {fault}", callers.watch(FOUND_WITHIN_S))
    assert broken["p99_ms"] <= MAX_FACTOR * healthy["p99_ms"] + SLACK_MS


def test_no_call_fails_when_a_replica_is_killed(deployment: Deployment) -> None:
    triton = deployment.tritons[1]
    with deployment.callers() as callers:
        began_s = time.monotonic()
        callers.watch(5)
        triton.kill()
        callers.watch(15)  # its address is still there
        triton.start(deployment.first)
        callers.watch(FOUND_WITHIN_S + 5)
        check("one killed", callers.calls(began_s))
        assert triton.count_requests()


def test_no_call_fails_while_gateways_are_killed_and_restarted(deployment: Deployment) -> None:
    kinds = (f"sdk={GATEWAY_URL}", f"async={GATEWAY_URL}")
    first, second = deployment.gateways
    triton_url = url_of("triton", 8001)

    def publish(*gateways: Gateway) -> None:
        deployment.network.publish("gateway", *(gateway.address for gateway in gateways))

    second.start(triton_url)
    publish(first, second)
    try:
        with deployment.callers(*kinds) as callers:
            began_s = time.monotonic()
            callers.watch(5)
            first.kill()
            callers.watch(15)
            first.start(triton_url)
            callers.watch(FOUND_WITHIN_S)
            publish(first)
            second.stop()
            second.start(triton_url)
            publish(first, second)
            callers.watch(FOUND_WITHIN_S)
            check("one gateway killed, one restarted", callers.calls(began_s))
    finally:
        publish(first)
        second.stop()

"""The last errors of the log: which are kept, and what of them."""

from __future__ import annotations

import logging
from contextvars import copy_context

import pytest
from lychee_client import ServerOverloadedError
from lychee_server.gateway.call_notes import open_notes
from lychee_server.gateway.request_ids import use_request_id
from lychee_server.gateway.status.recent_errors import KEPT, MAX_CHARACTERS, RecentErrors

CANARY = "canary-3f9"


@pytest.fixture
def errors() -> RecentErrors:
    return RecentErrors()


def test_errors_are_kept_newest_first_with_route_status_and_reason(errors: RecentErrors) -> None:
    fields = {"route": "/v1/rerank", "status": 502, "reason": "text_encoder failed", "query": CANARY, "texts": [CANARY]}
    with errors.listening(), use_request_id("shop-1"):
        logging.getLogger("lychee_server.access").error("request", extra={"fields": fields})
        logging.getLogger("lychee_server.gateway.service").error("the second\nwith %s", CANARY)
    second, first = errors.latest("a")
    assert (first.level, first.route, first.status, first.detail) == ("ERROR", "/v1/rerank", 502, "text_encoder failed")
    assert (first.request_id, second.message, second.detail) == ("shop-1", "the second", None)
    assert CANARY not in f"{first}{second}"


def test_of_warnings_only_changes_of_the_state_are_kept(errors: RecentErrors) -> None:
    with errors.listening():
        logging.getLogger("lychee_server.access").warning("request", extra={"fields": {"status": 400}})
        logging.getLogger("lychee_server.gateway").warning("the gateway is unavailable: Triton is away")
    assert [error.message for error in errors.latest("a")] == ["the gateway is unavailable: Triton is away"]


def test_of_an_exception_only_our_own_messages_are_kept(errors: RecentErrors) -> None:
    logger = logging.getLogger("lychee_server.access")
    with errors.listening():
        for error in (ValueError(CANARY), ServerOverloadedError("the queue is full")):
            try:
                raise error
            except Exception as raised:
                logger.error("request", exc_info=raised)
    details = [error.detail for error in errors.latest("a")]
    assert details == ["lychee_client._errors.ServerOverloadedError: the queue is full", "builtins.ValueError"]


def test_memory_is_bounded(errors: RecentErrors) -> None:
    logger = logging.getLogger("lychee_server.gateway")
    with errors.listening():
        for number in range(3 * KEPT):
            logger.error("%d %s", number, "x" * 10_000)
    logger.error("after the end")
    kept = errors.latest("a")
    assert len(kept) == KEPT
    assert {len(error.message) for error in kept} == {MAX_CHARACTERS}
    assert kept[0].message.startswith(f"{3 * KEPT - 1} ")


def ask(model: str, logger: logging.Logger) -> None:
    """Log something while a model is asked, without saying which."""
    open_notes().choose(model, is_told=True)
    logger.error("while %s was asked", model)


def test_errors_are_their_models_and_those_of_none_are_everybodys(errors: RecentErrors) -> None:
    access, other = logging.getLogger("lychee_server.access"), logging.getLogger("lychee_server.gateway.keys")
    with errors.listening():
        access.error("of a", extra={"fields": {"served": "a"}})
        other.error("of all")
        for _ in range(2 * KEPT):  # one model's push out no others'
            access.error("of b", extra={"fields": {"served": "b"}})
        copy_context().run(ask, "a", other)
    assert [(error.message, error.model) for error in errors.latest("a")] == [
        ("while a was asked", "a"),
        ("of all", None),
        ("of a", "a"),
    ]
    assert {error.message for error in errors.latest("b")} == {"of b"}
    assert [error.message for error in errors.latest("c")] == ["of all"]

"""Who supervises says so, and takes requests, over the kernel's list of names."""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Iterator

import pytest
from lychee_server import presence
from lychee_server.errors import LycheeServerError
from lychee_server.presence import Presence
from lychee_server.supervision.requests import Job, UpgradeRequest, ask_for_upgrade, refuse


@pytest.fixture
def marker() -> str:
    return f"lychee_test_{secrets.token_hex(8)}_"


@pytest.fixture
def place(marker: str) -> Iterator[Presence]:
    held = Presence(marker)
    yield held
    held.close()


def test_nobody_and_somebody(marker: str) -> None:
    assert presence.find(marker) is None
    held = Presence(marker)
    held.answer(lambda: "all is well", lambda line: iter(()))
    found = presence.find(marker)
    assert found == presence.Found(os.getpid(), "all is well")
    held.close()
    assert presence.find(marker) is None


def test_a_request_is_answered_line_by_line_and_others_are_served_meanwhile(marker: str, place: Presence) -> None:
    asked: list[UpgradeRequest] = []
    go_on = threading.Event()

    def take(line: str) -> Iterator[str]:
        job = Job(UpgradeRequest.parse(line))
        asked.append(job.request)

        def work() -> None:
            job.say("first")
            assert go_on.wait(30)
            job.say("second")
            job.end()

        threading.Thread(target=work).start()
        return job.lines()

    place.answer(lambda: "state", take)
    wanted = UpgradeRequest("clip", "/models", "cpu", force=True)
    said = ask_for_upgrade(marker, wanted)
    assert next(said) == "first"
    assert asked == [wanted]
    found = presence.find(marker)
    assert found is not None
    assert found.text == "state"
    go_on.set()
    assert list(said) == ["second"]


def test_a_failure_is_an_error_with_its_reason(marker: str, place: Presence) -> None:
    place.answer(lambda: "", lambda line: refuse("another upgrade is under way"))
    with pytest.raises(LycheeServerError, match="another upgrade is under way"):
        list(ask_for_upgrade(marker, UpgradeRequest()))


def test_a_supervisor_that_ends_in_the_middle_is_told(marker: str, place: Presence) -> None:
    place.answer(lambda: "", lambda line: iter(()))
    with pytest.raises(LycheeServerError, match="ended before it was done"):
        list(ask_for_upgrade(marker, UpgradeRequest()))
    with pytest.raises(LycheeServerError, match="does not answer"):
        list(ask_for_upgrade(f"{marker}other", UpgradeRequest()))


@pytest.mark.parametrize("line", ["", "no JSON", "[]", '{"upgrade": {"colour": 1}}', '{"other": {}}'])
def test_what_is_no_request_is_refused(line: str) -> None:
    with pytest.raises(LycheeServerError, match="does not understand"):
        UpgradeRequest.parse(line)

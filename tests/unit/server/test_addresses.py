"""Addresses and ports before anything listens."""

from __future__ import annotations

import errno
import os

import pytest
from lychee_server.addresses import Endpoint, check_endpoints, find_problem
from lychee_server.errors import SettingsError


def test_equal_ports_on_addresses_that_do_not_meet_are_allowed() -> None:
    check_endpoints({"--http-port": Endpoint("127.0.0.1", 8001), "--port": Endpoint("127.0.0.2", 8001)})


def test_free_ports_are_never_equal() -> None:
    check_endpoints({"--http-port": Endpoint("127.0.0.1", 0), "--port": Endpoint("127.0.0.1", 0)})


@pytest.mark.parametrize("first", ["127.0.0.1", "0.0.0.0", "localhost"])
def test_equal_ports_are_refused_by_the_names_of_their_options(first: str) -> None:
    with pytest.raises(SettingsError, match="--http-port and --port are both 8001"):
        check_endpoints({"--http-port": Endpoint(first, 8001), "--port": Endpoint("127.0.0.1", 8001)})


def test_a_port_that_needs_rights_is_told_as_such() -> None:
    refused = OSError(errno.EACCES, os.strerror(errno.EACCES))
    problem = find_problem(refused, "127.0.0.1", 80, "--port", "--host")
    assert isinstance(problem, SettingsError)
    assert "--port is 80, and this user may not listen on ports below 1024" in str(problem)


def test_a_taken_port_is_no_fault_of_the_address() -> None:
    assert find_problem(OSError(errno.EADDRINUSE, "in use"), "127.0.0.1", 80, "--port", "--host") is None

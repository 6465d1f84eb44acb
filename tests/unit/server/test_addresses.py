"""Addresses and ports before anything listens."""

from __future__ import annotations

import errno
import os
import socket

import pytest
from lychee_server.addresses import Endpoint, check_endpoints, find_free_ports, find_problem
from lychee_server.errors import SettingsError
from lychee_server.processes import pick_free_ports


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


def test_the_next_ports_are_free_and_equally_far() -> None:
    (base,) = pick_free_ports("127.0.0.1", 1)
    ports = (base, 0, base + 2)
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", base + 12))
        found = find_free_ports("127.0.0.1", ports, {base + 20})
    distance = found[0] - base
    assert (found[1], found[2] - ports[2]) == (0, distance)
    assert distance >= 30
    assert distance % 10 == 0
    assert find_free_ports("127.0.0.1", (0, 0, 0), {base}) == (0, 0, 0)


def test_without_free_ports_it_is_said_what_to_do() -> None:
    with pytest.raises(SettingsError, match=r"no ports after 65530 are free on 127\.0\.0\.1; say 0 for each"):
        find_free_ports("127.0.0.1", (65530,), ())

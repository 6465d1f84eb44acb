"""`docker compose up` as it is: texts and photos through the published ports, and what confines the containers."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from lychee_client import Image, LycheeClient

from containers.calls import TEXTS, ask, callers, data_url, rank, wait_for
from containers.stack import LOOPBACK, PROJECT, Stack

WRITE = "import pathlib, sys; pathlib.Path(sys.argv[1]).write_text('x')"
MEMORY_LIMITS = ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory.max")
CONFINED = ("gateway", "triton")
NEXT = "triton-next"
NAMES_SEEN_S = 10  # the gateway looks for the addresses of a name at least that often


@pytest.fixture(scope="module", autouse=True)
def served(stack: Stack) -> Iterator[None]:
    """Start Triton and the gateway."""
    with stack.running():
        yield


def test_gateway_ranks_texts_and_photos_on_the_published_port(stack: Stack, photos: Path) -> None:
    images = [{"image": data_url(photos / name)} for name in ("rocket.jpg", "cat.jpg")]
    results = rank(stack.url, *TEXTS, *images)
    assert {result["index"] for result in results[:2]} == {0, 3}
    assert [ask(f"{stack.url}{path}")[0] for path in ("/health/live", "/health/ready", "/metrics", "/")] == [200] * 4


def test_sdk_reaches_triton_on_its_published_ports(stack: Stack, photos: Path) -> None:
    documents = [TEXTS[0], Image.from_path(photos / "rocket.jpg")]
    scores = []
    for url in (f"{LOOPBACK}:{stack.ports[8001]}", f"http://{LOOPBACK}:{stack.ports[8000]}"):
        with LycheeClient(url) as client:
            scores.append([result.relevance_score for result in client.rerank("一只猫", documents)])
    assert scores[0] == pytest.approx(scores[1], abs=1e-6)
    assert scores[0][0] > 0.5 > scores[0][1]


def test_page_calibrates_in_its_container(stack: Stack) -> None:
    # What the page's calibration needs of other packages is in the image.
    stack.execute("gateway", "python", "-c", "import lychee_server.web.calibration_job, openpyxl")


@pytest.mark.parametrize("service", CONFINED)
def test_engine_confines_the_container_as_compose_says(stack: Stack, service: str) -> None:
    asked, host = stack.services[service], stack.inspect(service)["HostConfig"]
    assert host["ReadonlyRootfs"] == asked.get("read_only", False)
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert host["PidsLimit"] == asked["pids_limit"]
    assert host["Memory"] == int(asked["mem_limit"])
    assert not host["Privileged"]


@pytest.mark.parametrize("service", CONFINED)
def test_processes_have_no_privileges_and_a_limit_of_memory(stack: Stack, service: str) -> None:
    status = stack.execute(service, "cat", "/proc/1/status").stdout
    assert re.search(r"^NoNewPrivs:\t1$", status, re.MULTILINE)
    for kind in ("CapEff", "CapPrm", "CapBnd"):
        assert re.search(rf"^{kind}:\t0+$", status, re.MULTILINE), kind
    limits = [stack.execute(service, "cat", path, check=False).stdout.strip() for path in MEMORY_LIMITS]
    assert stack.services[service]["mem_limit"] in limits


def test_gateway_is_nobody_and_writes_to_tmp_alone(stack: Stack) -> None:
    assert stack.execute("gateway", "id", "-u").stdout.strip() == "10001"
    for path in ("/x", "/opt/lychee/x", "/etc/x", "/usr/bin/x", "/var/tmp/x"):
        tried = stack.execute("gateway", "python", "-c", WRITE, path, check=False)
        assert tried.returncode, path
        assert "Read-only file system" in tried.stderr, path
    stack.execute("gateway", "python", "-c", WRITE, "/tmp/x")


def test_models_are_read_only_for_triton(stack: Stack) -> None:
    tried = stack.execute("triton", "touch", "/models/x", check=False)
    assert tried.returncode
    assert "Read-only file system" in tried.stderr


def test_ports_are_open_on_the_loopback_alone(stack: Stack) -> None:
    for service in CONFINED:
        bound = stack.inspect(service)["NetworkSettings"]["Ports"]
        assert {binding["HostIp"] for bindings in bound.values() if bindings for binding in bindings} == {LOOPBACK}


@pytest.mark.parametrize("service", CONFINED)
def test_container_that_is_killed_comes_back_and_no_answer_is_wrong(stack: Stack, photos: Path, service: str) -> None:
    before = stack.inspect(service)["RestartCount"]
    with callers(stack.url, photos) as seen:
        wait_for(lambda: seen.right >= 5, "answers before the kill")
        # A `docker kill` would count as a wish and not be followed by a restart.
        os.kill(stack.inspect(service)["State"]["Pid"], signal.SIGKILL)
        wait_for(lambda: stack.inspect(service)["RestartCount"] > before, f"a restart of {service}")
        wait_for(lambda: {stack.health(name) for name in CONFINED} == {"healthy"}, "health after the kill")
        after = seen.right
        wait_for(lambda: seen.right >= after + 5, "answers after the kill")
    assert not seen.wrong


@pytest.mark.parametrize("service", CONFINED)
def test_container_that_is_restarted_under_load_gives_no_wrong_answer(stack: Stack, photos: Path, service: str) -> None:
    with callers(stack.url, photos) as seen:
        wait_for(lambda: seen.right >= 5, "answers before the restart")
        stack.compose("restart", service)
        wait_for(lambda: {stack.health(name) for name in CONFINED} == {"healthy"}, "health after the restart")
        after = seen.right
        wait_for(lambda: seen.right >= after + 5, "answers after the restart")
    assert not seen.wrong
    assert stack.inspect(service)["State"]["OOMKilled"] is False


@pytest.fixture
def _without_the_next(stack: Stack) -> Iterator[None]:
    yield
    stack.engine.run("rm", "--force", NEXT, check=False)


@pytest.mark.usefixtures("_without_the_next")
def test_another_triton_takes_over_under_load_without_a_failed_call(stack: Stack, photos: Path) -> None:
    # The commands of docs/how-to/upgrade.md.
    with callers(stack.url, photos) as seen:
        wait_for(lambda: seen.right >= 5, "answers before it begins")
        stack.compose("run", "--detach", "--no-deps", "--use-aliases", "--name", NEXT, "triton")
        health = ("inspect", "--format", "{{.State.Health.Status}}", NEXT)
        wait_for(lambda: stack.engine.run(*health).stdout.strip() == "healthy", "health of the other Triton")
        time.sleep(NAMES_SEEN_S)
        # Compose counts the other one as a container of the service, too.
        identity = ("inspect", "--format", "{{.Id}}", f"{PROJECT}-triton-1")
        before = stack.engine.run(*identity).stdout
        stack.compose("up", "--detach", "--no-deps", "--force-recreate", "--wait", "--no-build", "triton")
        assert stack.engine.run(*identity).stdout != before
        time.sleep(NAMES_SEEN_S)
        stack.engine.run("stop", NEXT)
        stack.engine.run("rm", NEXT)
        after = seen.right
        wait_for(lambda: seen.right >= after + 5, "answers after it ended")
    assert not seen.wrong
    assert not seen.refused

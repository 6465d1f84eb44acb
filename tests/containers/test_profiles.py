"""Profiles of docker-compose.yml: Redis, Prometheus, Locust beside Triton and gateway; Grafana cannot be had here."""

from __future__ import annotations

import json
from pathlib import Path

from containers.calls import TEXTS, ask, data_url, rank, wait_for
from containers.stack import LOOPBACK, Stack

CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)"


def test_gateways_share_redis_which_nobody_else_reaches(stack: Stack, photos: Path) -> None:
    with stack.running("cache", LYCHEE_GATEWAY_REDIS_URL="redis://redis:6379/0"):
        documents = [*TEXTS, {"image": data_url(photos / "cat.jpg")}]
        first = rank(stack.url, *documents)
        wait_for(lambda: int(stack.execute("redis", "redis-cli", "dbsize").stdout) > 0, "entries in Redis")
        assert rank(stack.url, *documents) == first
        assert stack.execute("redis", "id", "-u").stdout.strip() == "999"
        host = stack.inspect("redis")["HostConfig"]
        assert (host["ReadonlyRootfs"], host["CapDrop"]) == (True, ["ALL"])
        assert host["Memory"] == int(stack.services["redis"]["mem_limit"])
        stack.execute("gateway", "python", "-c", CONNECT, "redis", "6379")
        address = next(iter(stack.inspect("redis")["NetworkSettings"]["Networks"].values()))["IPAddress"]
        assert stack.execute("triton", "python3", "-c", CONNECT, address, "6379", check=False).returncode
        stack.compose("--profile=cache", "stop", "redis")
        assert [result["index"] for result in rank(stack.url, *documents)] == [result["index"] for result in first]


def test_prometheus_reads_gateway_and_triton(stack: Stack) -> None:
    with stack.running("observability"):
        url = f"http://{LOOPBACK}:{stack.ports[9090]}"

        def read_health() -> dict[str, str]:
            status, body = ask(f"{url}/api/v1/targets")
            assert status == 200, body
            return {one["labels"]["job"]: one["health"] for one in json.loads(body)["data"]["activeTargets"]}

        wait_for(lambda: read_health() == {"gateway": "up", "triton": "up"}, "both scraped")
        host = stack.inspect("prometheus")["HostConfig"]
        assert (host["ReadonlyRootfs"], host["CapDrop"]) == (True, ["ALL"])
        assert host["Memory"] == int(stack.services["prometheus"]["mem_limit"])
        status, body = ask(f"{url}/api/v1/rules")
        (group,) = json.loads(body)["data"]["groups"]
        assert status == 200
        assert {rule["health"] for rule in group["rules"]} <= {"ok", "unknown"}


def test_locust_finds_no_failure(stack: Stack) -> None:
    with stack.running():
        variables = {"LOCUST_USERS": "4", "LOCUST_RUN_TIME": "10s"}
        said = stack.compose("--profile=loadtest", "run", "--rm", "locust", **variables)
        assert "Aggregated" in said.stdout + said.stderr

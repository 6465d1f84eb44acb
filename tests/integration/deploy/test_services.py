"""Triton, Redis, the exporter and Grafana's start as docker-compose.yml runs them, outside containers."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from deployment import dockerfile_command, dockerfile_environment, find_tool, unescape
from lychee_server import defaults
from lychee_server.installation import TritonInstallation, assemble_backends
from lychee_server.processes import pick_free_ports

from .service_processes import START_TIMEOUT_S, ServiceProcesses, health_command, request

HOST = "127.0.0.1"


@pytest.mark.triton
def test_triton_serves_the_repository_with_composes_command(
    services: dict[str, Any], repository: Path, processes: ServiceProcesses
) -> None:
    installation = TritonInstallation.find()
    ports = dict(zip((8000, 8001, 8002), pick_free_ports(HOST, 3), strict=True))
    program, *arguments = services["triton"]["command"]
    assert program == "tritonserver"
    assert "--model-repository=/models" in arguments
    arguments = [argument.replace("/models", str(repository)) for argument in arguments]
    # What the image has in its own places, and ports that are free here.
    arguments += [
        f"--backend-directory={assemble_backends(installation, defaults.cache_dir())}",
        f"--http-port={ports[8000]}",
        f"--grpc-port={ports[8001]}",
        f"--metrics-port={ports[8002]}",
        f"--http-address={HOST}",
        f"--grpc-address={HOST}",
        f"--metrics-address={HOST}",
    ]
    triton = processes.start(
        [installation.binary, *arguments], installation.environment(os.environ, defaults.cache_dir())
    )
    triton.wait_until_ok(f"http://{HOST}:{ports[8000]}/v2/health/ready")
    probe = health_command(services["triton"], ports)
    find_tool(probe[0])
    assert subprocess.run(probe, timeout=START_TIMEOUT_S).returncode == 0
    assert b"nv_inference_request_success" in request(f"http://{HOST}:{ports[8002]}/metrics").body


def test_triton_is_unhealthy_where_nobody_answers(services: dict[str, Any]) -> None:
    find_tool("curl")
    (port,) = pick_free_ports(HOST, 1)
    assert subprocess.run(health_command(services["triton"], {8000: port}), timeout=START_TIMEOUT_S).returncode != 0


def test_redis_keeps_within_its_memory_and_writes_nothing(
    services: dict[str, Any], processes: ServiceProcesses, tmp_path: Path
) -> None:
    # Debian ships the server under this name, too: what it does depends on the name that it is called by.
    server = find_tool("redis-check-rdb")
    client = find_tool("redis-cli")
    (port,) = pick_free_ports(HOST, 1)
    program, *arguments = services["redis"]["command"]
    link = tmp_path / program
    link.symlink_to(server)
    processes.start([link, *arguments, "--port", str(port), "--bind", HOST])
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            socket.create_connection((HOST, port), timeout=1).close()
            break
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def ask(*words: str) -> list[str]:
        finished = subprocess.run(
            [client, "-p", str(port), *words], capture_output=True, text=True, check=True, timeout=START_TIMEOUT_S
        )
        return finished.stdout.split()

    probe = health_command(services["redis"], {})
    assert probe[0] == "redis-cli"
    assert ask(*probe[1:]) == ["PONG"]
    assert ask("config", "get", "maxmemory") == ["maxmemory", str(512 * 2**20)]
    assert ask("config", "get", "maxmemory-policy") == ["maxmemory-policy", "allkeys-lru"]
    assert ask("config", "get", "save") == ["save"]
    assert ask("config", "get", "appendonly") == ["appendonly", "no"]
    assert ask("config", "get", "dir") == ["dir", services["redis"]["tmpfs"][0].split(":")[0]]


def test_export_writes_the_bundled_model_where_triton_reads(services: dict[str, Any], tmp_path: Path) -> None:
    environment = dockerfile_environment("export")
    (mount,) = [mount for mount in services["triton"]["volumes"] if mount["target"] == "/models"]
    assert environment["LYCHEE_REPOSITORY"] == mount["target"]
    environment |= {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "LYCHEE_REPOSITORY": str(tmp_path / "models"),
        "LYCHEE_CACHE_DIR": str(tmp_path / "cache"),
        "HOME": str(tmp_path),
    }
    command = [*dockerfile_command("export"), *services["export"]["command"]]
    assert shutil.which(command[0], path=environment["PATH"])
    # The whole export takes a minute and has tests of its own.
    finished = subprocess.run(
        [*command, "--dry-run"], env=environment, capture_output=True, text=True, timeout=START_TIMEOUT_S
    )
    assert finished.returncode == 0, finished.stderr
    assert "vision_encoder" in finished.stdout


def test_grafana_refuses_to_start_without_a_password(services: dict[str, Any]) -> None:
    grafana = services["grafana"]
    assert grafana["environment"]["GF_SECURITY_ADMIN_PASSWORD"] == ""
    *shell, script = (unescape(word) for word in grafana["entrypoint"])
    script = script.replace("exec /run.sh", "echo started")
    for password, code, said in (("", 1, "GRAFANA_ADMIN_PASSWORD"), ("a password", 0, "started")):
        finished = subprocess.run(
            [*shell, script], env={"GF_SECURITY_ADMIN_PASSWORD": password}, capture_output=True, text=True, timeout=10
        )
        assert finished.returncode == code
        assert said in finished.stdout + finished.stderr

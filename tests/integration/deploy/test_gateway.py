"""The gateway as docker-compose.yml runs it, and what asks it: health check, Locust, Prometheus with the dashboard."""

from __future__ import annotations

import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import lychee_loadtest
import pytest
import yaml
from deployment import ROOT, dockerfile_command, find_tool, last_instruction
from lychee_server import TritonServer
from lychee_server.processes import pick_free_ports

from .conftest import HOST, GatewayLine
from .service_processes import START_TIMEOUT_S, ServiceProcesses, health_command, request

pytestmark = pytest.mark.triton

BODY = json.dumps({"query": "一只猫", "documents": ["店里的小猫喜欢在窗台上晒太阳。", "a rocket"]})
JSON = {"content-type": "application/json"}
SCRAPES = 3
CANNOT_HAPPEN_HERE = re.compile(r"nv_gpu_|nv_inference_request_failure")
"""Series of GPUs, and of failures."""

READ_ONLY = """
set -e
mount -t tmpfs tmpfs /mnt
mkdir /mnt/python /mnt/project
mount --bind "$1" /mnt/python
mount --bind "$4" /mnt/project
mount -t tmpfs -o mode=1777,size=512m tmpfs /tmp
case "$1" in "$2"/*)  # a home that nobody else may enter: keep the interpreter and the project alone
    mount -t tmpfs -o mode=755 tmpfs "$2" ;;
esac
for kept in "python $1" "project $4"; do
    [ -d "${kept#* }" ] && continue
    mkdir -p "${kept#* }"
    mount --bind "/mnt/${kept%% *}" "${kept#* }"
    mount -o remount,bind,ro "${kept#* }"
done
umount /mnt/python /mnt/project
mount --bind / /
mount -o remount,bind,ro /
user=$3
shift 4
exec setpriv --reuid="${user%:*}" --regid="${user#*:}" --clear-groups --inh-caps=-all --bounding-set=-all \
    --no-new-privs "$@"
"""


@pytest.fixture
def answer_with() -> Iterator[Callable[[int], int]]:
    """Return a function that starts a server which answers everything with a status, and returns its port."""
    servers: list[http.server.HTTPServer] = []

    def start(status: int) -> int:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status if self.path == "/health/ready" else 404)
                self.end_headers()

            def log_message(self, *arguments: object) -> None:
                """Print nothing."""

        server = http.server.HTTPServer((HOST, 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever).start()
        return int(server.server_address[1])

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_health_check_tells_a_ready_gateway_from_another(
    services: dict[str, Any], answer_with: Callable[[int], int]
) -> None:
    (closed,) = pick_free_ports(HOST, 1)
    for port, healthy in ((answer_with(200), True), (answer_with(503), False), (closed, False)):
        command = health_command(services["gateway"], {7860: port})
        assert command[0] == "python"
        finished = subprocess.run([sys.executable, *command[1:]], capture_output=True, timeout=START_TIMEOUT_S)
        assert (finished.returncode == 0) == healthy


def test_gateway_ranks_behind_the_health_check(gateway_url: str, services: dict[str, Any]) -> None:
    port = urlsplit(gateway_url).port
    assert port is not None
    command = health_command(services["gateway"], {7860: port})
    subprocess.run([sys.executable, *command[1:]], check=True, timeout=START_TIMEOUT_S)
    answer = request(f"{gateway_url}/v1/rerank", "POST", BODY.encode(), JSON)
    assert answer.status == 200, answer.body
    assert [result["index"] for result in json.loads(answer.body)["results"]] == [0, 1]


def test_gateway_needs_neither_privileges_nor_a_writable_disk(
    gateway_line: GatewayLine, processes: ServiceProcesses
) -> None:
    wrapper = ["unshare", "--mount", "--propagation", "private", "sh", "-c", READ_ONLY, "sh"]
    wrapper += [sys.base_prefix, str(Path.home()), last_instruction("gateway", "USER"), str(ROOT)]
    probe = [*wrapper, "sh", "-c", f"! touch {ROOT}/x /root/x /usr/x 2>/dev/null && touch /tmp/x"]
    if os.getuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("only root can make a read-only view of the disk")
    tried = subprocess.run(probe, capture_output=True, text=True, timeout=START_TIMEOUT_S)
    if tried.returncode:
        pytest.skip(f"a read-only view of the disk cannot be made here: {tried.stderr.strip()}")
    program, *arguments = gateway_line.command
    command = [*wrapper, Path(sys.executable).parent / program, *arguments]
    gateway = processes.start(command, gateway_line.environment)
    gateway.wait_until_ok(f"{gateway_line.url}/health/ready")
    answer = request(f"{gateway_line.url}/v1/rerank", "POST", BODY.encode(), JSON)
    assert answer.status == 200, answer.body
    assert b"page/shell/app.js" in request(gateway_line.url).body
    status = Path(f"/proc/{gateway.process.pid}/status").read_text(encoding="utf-8")
    assert re.search(r"^Uid:\t10001\t10001\t10001", status, re.MULTILINE)
    assert re.search(r"^CapBnd:\t0+$", status, re.MULTILINE)
    gateway.process.terminate()
    assert gateway.process.wait(START_TIMEOUT_S) == 0
    assert not re.search(r"Permission denied|Read-only file system", gateway.log)


def test_locust_finds_no_failure(gateway_url: str, services: dict[str, Any], tmp_path: Path) -> None:
    command = [*dockerfile_command("locust"), *services["locust"]["command"]]
    assert "--host=http://gateway:7860" in command
    installed = str(Path(lychee_loadtest.__file__).parents[1])
    replaced = {"http://gateway:7860": gateway_url, "/opt/lychee/lib/python3.11/site-packages": installed}
    for inside, here in replaced.items():
        command = [argument.replace(inside, here) for argument in command]
    report = tmp_path / "report"
    shorter = ["--run-time=4s", "--users=4", f"--csv={report}", "--loglevel=WARNING"]
    finished = subprocess.run(
        [Path(sys.executable).parent / command[0], *command[1:], *shorter],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=START_TIMEOUT_S,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    lines = Path(f"{report}_stats.csv").read_text(encoding="utf-8").splitlines()
    total = dict(zip(lines[0].split(","), lines[-1].split(","), strict=True))
    assert total["Name"] == "Aggregated"
    assert int(total["Request Count"]) > 0
    assert int(total["Failure Count"]) == 0


def test_dashboard_shows_what_prometheus_reads_from_gateway_and_triton(
    services: dict[str, Any], gateway_url: str, server: TritonServer, processes: ServiceProcesses, tmp_path: Path
) -> None:
    prometheus = find_tool("prometheus")
    (port,) = pick_free_ports(HOST, 1)
    url = f"http://{HOST}:{port}"
    folder = tmp_path / "etc"
    shutil.copytree(ROOT / "deploy" / "prometheus", folder)
    (folder / "prometheus.yml").write_text(localize(folder, gateway_url, server), encoding="utf-8")
    arguments = [
        argument.replace("/etc/prometheus", str(folder)).replace("=/prometheus", f"={tmp_path / 'data'}")
        for argument in services["prometheus"]["command"]
    ]
    running = processes.start([prometheus, *arguments, f"--web.listen-address={HOST}:{port}"])
    probe = services["prometheus"]["healthcheck"]["test"][-1]
    running.wait_until_ok(probe.replace("http://127.0.0.1:9090", url))

    def query(expression: str) -> list[Any]:
        answer = request(f"{url}/api/v1/query?query={quote(expression)}")
        assert answer.status == 200, answer.body
        result: list[Any] = json.loads(answer.body)["data"]["result"]
        return result

    deadline = time.monotonic() + START_TIMEOUT_S
    while len(query(f"count_over_time(up[1m]) >= {SCRAPES} and up == 1")) < 2:
        assert time.monotonic() < deadline, query("up")
        assert request(f"{gateway_url}/v1/rerank", "POST", BODY.encode(), JSON).status == 200
    dashboard = json.loads((ROOT / "deploy/grafana/dashboards/lychee-rerank.json").read_text(encoding="utf-8"))
    empty = []
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            expression = (
                target["expr"].replace("$__rate_interval", "1m").replace("$instance", ".*").replace("$model", ".*")
            )
            if not query(expression) and not CANNOT_HAPPEN_HERE.search(expression):
                empty.append(f"{panel['title']}: {expression}")
    assert not empty
    rules = json.loads(request(f"{url}/api/v1/rules").body)["data"]["groups"][0]["rules"]
    assert {rule["health"] for rule in rules} <= {"ok", "unknown"}
    assert not [rule["name"] for rule in rules if rule["state"] == "firing"]


def localize(folder: Path, gateway_url: str, server: TritonServer) -> str:
    """Return prometheus.yml with this machine's addresses, and many scrapes in little time."""
    config = yaml.safe_load((folder / "prometheus.yml").read_text(encoding="utf-8"))
    config["global"] = {"scrape_interval": "500ms", "evaluation_interval": "500ms"}
    targets = {"gateway:7860": urlsplit(gateway_url).netloc, "triton:8002": urlsplit(server.metrics_url).netloc}
    for job in config["scrape_configs"]:
        for group in job["static_configs"]:
            group["targets"] = [targets.pop(target) for target in group["targets"]]
        if "authorization" in job:
            job["authorization"]["credentials_file"] = str(folder / "no-key")
    assert not targets
    return str(yaml.safe_dump(config))

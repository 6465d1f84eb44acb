"""What the Helm chart renders, as processes of this machine: commands, probes, hooks, jobs and queries."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
import yaml
from chart import NAMESPACE, RELEASE, Manifest, container, environment, one, pods, render
from deployment import find_tool
from lychee_client import LycheeClient
from lychee_server import TritonServer, defaults
from lychee_server.installation import TritonInstallation, assemble_backends
from lychee_server.processes import pick_free_ports

from .conftest import HOST, GatewayLine, translate_gateway
from .service_processes import START_TIMEOUT_S, Answer, ServiceProcess, ServiceProcesses, request

pytestmark = pytest.mark.triton

URL = "LYCHEE_GATEWAY_TRITON_URL"
PROBES = ("startupProbe", "readinessProbe", "livenessProbe")
CLAIM = {"source": "claim", "claim": {"name": "models"}}
BODY = json.dumps({"query": "a cat", "documents": ["a rocket", "a kitten"]})
JSON = {"content-type": "application/json"}
ENCODERS = {"text_encoder", "vision_encoder"}
EXPORT_TIMEOUT_S = 600  # importing torch takes minutes on a busy machine


def as_line(gateway: Manifest, server: TritonServer) -> GatewayLine:
    """Return a rendered gateway for this machine; the real Triton's address has the form that it was rendered in."""
    variables = environment(gateway)
    rendered = variables[URL]
    service = {"command": gateway.get("command"), "environment": {**variables, URL: "triton:8001"}}
    line = translate_gateway({"gateway": service}, server)
    scheme = "dns:///" if rendered.startswith("dns:///") else ""
    return GatewayLine(line.command, {**line.environment, URL: scheme + server.grpc_url}, line.url)


def probe(of: Manifest, kind: str, ports: dict[str, int]) -> Answer:
    """Ask as the kubelet does: by the pod's address, with the headers that the probe names."""
    get = of[kind]["httpGet"]
    headers = {header["name"]: header["value"] for header in get.get("httpHeaders", [])}
    return request(f"http://{HOST}:{ports[get['port']]}{get['path']}", headers=headers)


def run_hook(of: Manifest, replaced: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Start what the kubelet runs in the container before SIGTERM."""
    command = of["lifecycle"]["preStop"]["exec"]["command"]
    for there, here in (replaced or {}).items():
        command = [word.replace(there, here) for word in command]
    find_tool(command[0])
    return subprocess.Popen(command)


@pytest.mark.parametrize("topology", ["together", "separate"])
def test_gateway_is_ready_ranks_and_ends_in_its_time(
    topology: str, server: TritonServer, processes: ServiceProcesses, tmp_path: Path
) -> None:
    manifests = render({"topology": topology, "gateway": {"preStopSeconds": 1}})
    name = "Deployment server" if topology == "together" else "Deployment gateway"
    gateway = container(manifests, name, "gateway")
    line = as_line(gateway, server)
    assert line.environment[URL].startswith("dns:///") == (topology == "separate")
    running = processes.start(line.command, {**line.environment, "LYCHEE_CACHE_DIR": str(tmp_path)})
    ports = {"http": urlsplit(line.url).port or 0}
    # translate_gateway names a host that others come by, so that every other is refused; the kubelet is not.
    running.wait_until_ok(f"{line.url}/health/ready")
    assert [probe(gateway, kind, ports).status for kind in PROBES] == [200, 200, 200]
    tested = pods(manifests)["Pod test"]["spec"]["containers"][0]
    command = [sys.executable, *tested["command"][1:]]
    assert tested["command"][0] == "python"
    finished = subprocess.run(
        command, env={"LYCHEE_URL": line.url}, capture_output=True, text=True, timeout=START_TIMEOUT_S
    )
    assert finished.returncode == 0, finished.stderr
    assert "ranked: [(1, 0.9" in finished.stdout
    assert run_hook(gateway).wait(START_TIMEOUT_S) == 0
    running.process.terminate()
    assert running.process.wait(pods(manifests)[name]["spec"]["terminationGracePeriodSeconds"]) == 0
    finished = subprocess.run(command, env={"LYCHEE_URL": line.url}, capture_output=True, timeout=START_TIMEOUT_S)
    assert finished.returncode != 0


def test_a_changed_secret_counts_without_a_restart(
    server: TritonServer, processes: ServiceProcesses, tmp_path: Path
) -> None:
    manifests = render({"topology": "together", "gateway": {"apiKeys": {"secret": "keys"}}})
    gateway = container(manifests, "Deployment server", "gateway")
    path = Path(environment(gateway)["LYCHEE_GATEWAY_API_KEYS_FILE"])
    (mount,) = [mount for mount in gateway["volumeMounts"] if mount["name"] == "api-keys"]
    assert path.parent == Path(mount["mountPath"])
    assert "subPath" not in mount  # the kubelet never updates such a file

    def write(*keys: str) -> None:
        """Write as the kubelet does: a new folder, and a link that is exchanged."""
        folder = tmp_path / f"..{time.monotonic_ns()}"
        folder.mkdir()
        (folder / path.name).write_text("\n".join(keys), encoding="utf-8")
        (tmp_path / "..new").symlink_to(folder.name)
        (tmp_path / "..new").rename(tmp_path / "..data")
        if not (tmp_path / path.name).is_symlink():
            (tmp_path / path.name).symlink_to(f"..data/{path.name}")

    def status(key: str) -> int:
        return request(f"{line.url}/v1/models", headers={"authorization": f"Bearer {key}"}).status

    write("first")
    line = as_line(gateway, server)
    line.environment["LYCHEE_GATEWAY_API_KEYS_FILE"] = str(tmp_path / path.name)
    processes.start(line.command, line.environment).wait_until_ok(f"{line.url}/health/ready")
    assert (status("first"), status("second")) == (200, 401)
    write("second")
    deadline = time.monotonic() + START_TIMEOUT_S
    while status("second") != 200:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert status("first") == 401


@pytest.fixture
def start_triton(
    repository: Path, processes: ServiceProcesses
) -> Callable[[Manifest, list[Manifest]], tuple[ServiceProcess, dict[str, int]]]:
    """Return a function that runs a rendered Triton with the wheel's tritonserver, and returns its ports by name."""

    def start(triton: Manifest, manifests: list[Manifest]) -> tuple[ServiceProcess, dict[str, int]]:
        installation = TritonInstallation.find()
        names = {port["containerPort"]: port["name"] for port in triton["ports"]}
        ports = dict(zip(("triton-http", "grpc", "triton-metrics"), pick_free_ports(HOST, 3), strict=True))
        assert names == {8000: "triton-http", 8001: "grpc", 8002: "triton-metrics"}
        program, *arguments = triton["args"]
        assert program == "tritonserver"
        key = {"$(LYCHEE_TRITON_KEY)": "a-key", "/models": str(repository)}
        for there, here in key.items():
            assert any(there in argument for argument in arguments)
            arguments = [argument.replace(there, here) for argument in arguments]
        # What the image has in its own places, and ports that are free here.
        backends = assemble_backends(installation, defaults.cache_dir())
        arguments += [f"--backend-directory={backends}"]
        for option, name in (("http", "triton-http"), ("grpc", "grpc"), ("metrics", "triton-metrics")):
            arguments += [f"--{option}-port={ports[name]}", f"--{option}-address={HOST}"]
        variables = installation.environment(os.environ, defaults.cache_dir()) | {"LYCHEE_TRITON_KEY": "a-key"}
        running = processes.start([installation.binary, *arguments], variables)
        ready = triton["startupProbe"]["httpGet"]["path"]
        running.wait_until_ok(f"http://{HOST}:{ports['triton-http']}{ready}")
        return running, ports

    return start


def test_triton_serves_keeps_its_key_and_ends_in_its_time(
    start_triton: Callable[[Manifest, list[Manifest]], tuple[ServiceProcess, dict[str, int]]],
) -> None:
    manifests = render({"model": CLAIM, "triton": {"preStopSeconds": 1}})
    triton = container(manifests, "Deployment triton", "triton")
    running, ports = start_triton(triton, manifests)
    assert [probe(triton, kind, ports).status for kind in PROBES] == [200, 200, 200]
    index = f"http://{HOST}:{ports['triton-http']}/v2/repository/index"
    assert request(index, "POST").status == 403
    assert request(index, "POST", headers={"triton-grpc-protocol-lychee-key": "a-key"}).status == 200
    with LycheeClient(f"{HOST}:{ports['grpc']}") as client:
        assert len(client.rerank("a cat", ["a rocket", "a kitten"]).results) == 2
    assert b"nv_inference_queue_duration_us" in request(f"http://{HOST}:{ports['triton-metrics']}/metrics").body
    assert run_hook(triton).wait(START_TIMEOUT_S) == 0
    running.process.terminate()
    assert running.process.wait(pods(manifests)["Deployment triton"]["spec"]["terminationGracePeriodSeconds"]) == 0


def test_triton_waits_for_the_gateway_of_its_pod(processes: ServiceProcesses, gateway_line: GatewayLine) -> None:
    find_tool("curl")
    manifests = render({"topology": "together", "model": CLAIM})
    triton = container(manifests, "Deployment server", "triton")
    gateway = processes.start(gateway_line.command, gateway_line.environment)
    gateway.wait_until_ok(f"{gateway_line.url}/health/live")
    waiting = run_hook(triton, {"http://127.0.0.1:7860": gateway_line.url})
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.wait(2)
    gateway.process.terminate()
    assert waiting.wait(START_TIMEOUT_S) == 0
    # And where there never was one, it ends at once.
    assert run_hook(triton, {"http://127.0.0.1:7860": gateway_line.url}).wait(START_TIMEOUT_S) == 0


def test_export_runs_once_and_pods_wait_for_it(tmp_path: Path) -> None:
    manifests = render({"model": {"export": {"as": "job", "args": ["lychee-mini", "--dry-run"]}}})
    (name,) = [name for name in pods(manifests) if name.startswith("Job ")]
    export = container(manifests, name, "export")
    waits = container(manifests, "Deployment triton", "wait-for-models")
    folder = environment(export)["LYCHEE_REPOSITORY"]
    here = str(tmp_path / "models")
    variables = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "LYCHEE_REPOSITORY": here,
        "LYCHEE_CACHE_DIR": str(tmp_path / "cache"),
        "HOME": str(tmp_path),
    }
    command = [*export["command"], *export["args"]]
    waiting = subprocess.Popen([word.replace(folder, here) for word in waits["command"]])
    first, second = (
        subprocess.run(command, env=variables, capture_output=True, text=True, timeout=EXPORT_TIMEOUT_S)
        for _ in range(2)
    )
    assert first.returncode == 0, first.stderr
    assert "vision_encoder" in first.stdout
    assert (second.returncode, second.stdout) == (0, "")
    assert waiting.wait(START_TIMEOUT_S) == 0


def test_an_export_that_fails_is_not_taken_for_one(tmp_path: Path) -> None:
    manifests = render({"model": {"export": {"args": ["no-such-checkpoint"]}}})
    export = container(manifests, "Deployment triton", "export")
    variables = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "LYCHEE_REPOSITORY": str(tmp_path / "models"),
        "HOME": str(tmp_path),
    }
    command = [*export["command"], *export["args"]]
    finished = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=EXPORT_TIMEOUT_S)
    assert finished.returncode != 0
    assert not (tmp_path / "models" / ".complete").exists()


def test_models_are_copied_out_of_an_image(tmp_path: Path) -> None:
    values = {"model": {"source": "copy", "copy": {"image": "registry.example.org/models:7"}}}
    command = container(render(values), "Deployment triton", "get-models")["command"]
    (tmp_path / "repository" / "text_encoder").mkdir(parents=True)
    (tmp_path / "models").mkdir()
    subprocess.run([re.sub("^/", f"{tmp_path}/", word) for word in command], check=True, timeout=START_TIMEOUT_S)
    assert (tmp_path / "models" / "text_encoder").is_dir()


@pytest.fixture
def ask_prometheus(server: TritonServer, processes: ServiceProcesses, tmp_path: Path) -> Callable[[str], list[Any]]:
    """Run a Prometheus that scrapes Triton with the labels that the PodMonitor gives, and return what asks it."""
    monitor = one(render({"monitoring": {"podMonitor": {"enabled": True}}}), "PodMonitor", "triton")["spec"]
    (label,) = monitor["podTargetLabels"]
    labels = {re.sub(r"\W", "_", label): RELEASE, "namespace": NAMESPACE, "pod": "lychee-triton-0"}
    (port,) = pick_free_ports(HOST, 1)
    scrape = {
        "job_name": "triton",
        "metrics_path": monitor["podMetricsEndpoints"][0]["path"],
        "static_configs": [{"targets": [urlsplit(server.metrics_url).netloc], "labels": labels}],
    }
    config = {"global": {"scrape_interval": "500ms"}, "scrape_configs": [scrape]}
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    arguments = [f"--config.file={tmp_path / 'prometheus.yml'}", f"--storage.tsdb.path={tmp_path / 'data'}"]
    running = processes.start([find_tool("prometheus"), *arguments, f"--web.listen-address={HOST}:{port}"])
    running.wait_until_ok(f"http://{HOST}:{port}/-/ready")

    def ask(query: str) -> list[Any]:
        answer = request(f"http://{HOST}:{port}/api/v1/query?query={quote(query)}")
        assert answer.status == 200, answer.body
        result: list[Any] = json.loads(answer.body)["data"]["result"]
        return result

    return ask


@pytest.fixture
def load(server: TritonServer) -> Iterator[None]:
    """Ask Triton from four threads."""
    over = threading.Event()

    def work(number: int) -> None:
        with LycheeClient(server.grpc_url) as client:
            while not over.is_set():
                client.rerank(f"a cat {time.monotonic_ns()}", [f"{number} {time.monotonic_ns()} {i}" for i in range(8)])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    yield
    over.set()
    for thread in threads:
        thread.join(START_TIMEOUT_S)


def scaling_queries() -> dict[str, str]:
    """Return what KEDA asks, and what Prometheus Adapter makes of its rule for the HPA's selector."""
    (trigger,) = one(render({"autoscaling": {"kind": "keda"}}), "ScaledObject")["spec"]["triggers"]
    manifests = render({"autoscaling": {"kind": "hpa"}})
    (rule,) = yaml.safe_load(one(manifests, "ConfigMap", "prometheus-adapter")["data"]["config.yaml"])["externalRules"]
    (metric,) = one(manifests, "HorizontalPodAutoscaler")["spec"]["metrics"]
    assert rule["name"]["as"] == metric["external"]["metric"]["name"]
    matchers = {"namespace": NAMESPACE, **metric["external"]["metric"]["selector"]["matchLabels"]}
    text = ",".join(f'{name}="{value}"' for name, value in matchers.items())
    return {
        "keda": trigger["metadata"]["query"],
        "adapter": rule["metricsQuery"].replace("<<.LabelMatchers>>", text),
        "series": rule["seriesQuery"],
    }


def test_autoscalers_read_how_long_requests_wait(ask_prometheus: Callable[[str], list[Any]], load: None) -> None:
    queries = scaling_queries()
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        values = {name: ask_prometheus(queries[name]) for name in ("keda", "adapter")}
        if all(len(value) == 1 and float(value[0]["value"][1]) > 0 for value in values.values()):
            break
        assert time.monotonic() < deadline, values
        time.sleep(0.5)
    series = ask_prometheus(queries["series"])
    assert {one["metric"]["model"] for one in series} >= ENCODERS
    (other,) = ask_prometheus(queries["keda"].replace(f'="{RELEASE}"', '="another"'))
    assert float(other["value"][1]) == 0


def test_no_request_means_no_wait(ask_prometheus: Callable[[str], list[Any]]) -> None:
    (result,) = ask_prometheus(scaling_queries()["keda"].replace("text_encoder", "nobody").replace("vision_", "no_"))
    assert float(result["value"][1]) == 0

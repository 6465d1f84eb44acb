"""docker-compose.yml in containers: started, asked, and removed with all that belongs to it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from deployment import COMPOSE_FILE, ROOT, find_tool, read_services
from lychee_server.processes import pick_free_ports

from containers.engine import Engine

PROJECT = "lychee-rerank-tested"
LOOPBACK = "127.0.0.1"
BUILD_TIMEOUT_S = 1800
START_TIMEOUT_S = 600
OPENED = {"gateway": (7860,), "triton": (8000, 8001), "prometheus": (9090,)}
PASSED_ON = ("PATH", "HOME", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL")
WHEELS = "lychee-rerank-wheels"
STAND_INS = Path(__file__).parent / "stand_ins"


class _Reset(yaml.YAMLObject):
    """Takes a key of docker-compose.yml out; written as `!reset null`."""

    yaml_tag = "!reset"

    @classmethod
    def to_yaml(cls, dumper: yaml.Dumper, data: object) -> yaml.ScalarNode:
        return dumper.represent_scalar("!reset", "null")


class _Override(list[str]):
    """Takes the place of a list of docker-compose.yml."""


yaml.add_representer(_Override, lambda dumper, data: dumper.represent_sequence("!override", data))


class Stack:
    """The services as Compose runs them, on ports that are free.

    Args:
        engine: Where they run.
        folder: For the override.
        stand_ins: Services whose image cannot be had; what stands in for it is built.
    """

    def __init__(self, engine: Engine, folder: Path, stand_ins: frozenset[str]) -> None:
        self.engine = engine
        self.services = read_services()
        ports = iter(pick_free_ports(LOOPBACK, sum(map(len, OPENED.values()))))
        self.ports = {port: next(ports) for opened in OPENED.values() for port in opened}
        self._override = folder / "override.yml"
        self._override.write_text(yaml.dump(self._make_override(stand_ins)), encoding="utf-8")

    @property
    def url(self) -> str:
        """The gateway's URL."""
        return f"http://{LOOPBACK}:{self.ports[7860]}"

    def compose(
        self, *arguments: str, check: bool = True, timeout_s: float = START_TIMEOUT_S, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command of Docker Compose on this project; fail with what it printed."""
        command = [str(find_tool("docker-compose")), f"--project-name={PROJECT}", f"--project-directory={ROOT}"]
        command += [f"--file={COMPOSE_FILE}", f"--file={self._override}", *arguments]
        environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        environment |= {"DOCKER_HOST": self.engine.host, **variables}
        finished = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout_s)
        if check and finished.returncode:
            logs = subprocess.run(
                [*command[:5], "logs", "--tail=40"], env=environment, capture_output=True, text=True, timeout=60
            )
            raise AssertionError(f"{' '.join(arguments)}:\n{finished.stdout}{finished.stderr}\n{logs.stdout}")
        return finished

    def build(self, *services: str) -> None:
        """Build the images of services."""
        self.compose("--profile=*", "build", *services, timeout_s=BUILD_TIMEOUT_S)

    @contextmanager
    def running(self, *profiles: str, **variables: str) -> Iterator[None]:
        """Start a profile's services, wait until all are healthy; remove them on the way out, the models excepted."""
        options = [f"--profile={profile}" for profile in profiles]
        try:
            up = [*options, "up", "--detach", "--wait", "--wait-timeout", str(START_TIMEOUT_S), "--no-build"]
            # Grafana's image cannot be had, and Locust is a command of its own.
            up += [name for name in self.names(*profiles) if name not in {"grafana", "locust"}]
            self.compose(*up, **variables)
            yield
        finally:
            self.compose("--profile=*", "down", "--timeout=10")

    def names(self, *profiles: str) -> list[str]:
        """Return the services that these profiles start."""
        return [
            name
            for name, service in self.services.items()
            if not service.get("profiles") or set(service["profiles"]) & set(profiles)
        ]

    def remove(self) -> None:
        """Remove containers, networks and volumes."""
        self.compose("--profile=*", "down", "--volumes", "--timeout=10", check=False)

    def inspect(self, service: str) -> dict[str, Any]:
        """Return what the engine says of a service's container."""
        (found,) = self.compose("--profile=*", "ps", "--all", "--quiet", service).stdout.split()
        (content,) = json.loads(self.engine.run("inspect", found).stdout)
        return dict(content)

    def execute(self, service: str, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command inside a service's container."""
        return self.engine.run("exec", self.inspect(service)["Id"], *command, check=check)

    def health(self, service: str) -> str:
        """Return "starting", "healthy" or "unhealthy", or how the container is where it does not run."""
        state = self.inspect(service)["State"]
        return str(state["Health"]["Status"] if state["Running"] else state["Status"])

    def _make_override(self, stand_ins: frozenset[str]) -> dict[str, Any]:
        services: dict[str, Any] = {}
        for name, service in self.services.items():
            override: dict[str, Any] = {}
            # Before version 25, the engine refuses the file over it; health is looked at often instead, and a machine
            # that is busy with other tests gets time to start.
            if "start_interval" in service.get("healthcheck", {}):
                override["healthcheck"] = {"start_interval": _Reset(), "interval": "2s", "start_period": "600s"}
            if "build" in service:
                override["build"] = {"network": "host"}
            if name in stand_ins:
                override["build"] = {"context": str(STAND_INS), "target": name, "network": "host"}
                override["build"]["args"] = service.get("build", {}).get("args", {})
            if name in OPENED:
                override["ports"] = _Override(f"{LOOPBACK}:{self.ports[port]}:{port}" for port in OPENED[name])
            if override:
                services[name] = override
        gateway = self.services["gateway"]["build"]
        services["wheels"] = {
            "image": WHEELS,
            "profiles": ["stand-ins"],
            "build": {**gateway, "target": "wheels", "network": "host"},
        }
        return {"services": services}

"""docker-compose.yml as Docker Compose itself reads it, and the programs that run its services' command lines here."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
TOOLS = ROOT / ".tools"
COMPOSE_FILE = ROOT / "docker-compose.yml"
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
TARGETS = ("export", "gateway", "locust")
TIMEOUT_S = 60


def find_tool(name: str) -> Path:
    """Return a program of .tools/ or of the system; skip the test where there is none."""
    for folder in (TOOLS, TOOLS / "usr" / "bin", TOOLS / "usr" / "sbin"):
        if (folder / name).is_file():
            return folder / name
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"there is no {name} here; deploy/test-tools.sh gets it")
    return Path(found)


def run_compose(*arguments: str, files: tuple[Path, ...] = (COMPOSE_FILE,), **environment: str) -> str:
    """Return what Docker Compose prints, with no variables but those that are given.

    Raises:
        subprocess.CalledProcessError: It refused; `stderr` says why.
    """
    command = [str(find_tool("docker-compose")), "--project-directory", str(ROOT)]
    command += [f"--file={path}" for path in files]
    clean = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", **environment}
    finished = subprocess.run(
        [*command, *arguments], env=clean, check=True, capture_output=True, text=True, timeout=TIMEOUT_S
    )
    return finished.stdout


def read_services(**options: Any) -> dict[str, Any]:
    """Return all services, whatever their profile, with anchors merged and variables replaced."""
    content = json.loads(run_compose("--profile=*", "config", "--format=json", **options))
    return dict(content["services"])


def unescape(word: str) -> str:
    """Return a word of a command line as the container sees it: `config` escapes every dollar again."""
    return word.replace("$$", "$")


def read_dockerfile() -> list[tuple[str, str]]:
    """Return the Dockerfile's instructions and their arguments; continued lines are joined."""
    text = re.sub(r"\\\n\s*", " ", DOCKERFILE.read_text(encoding="utf-8"))
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1]) for line in lines]


def read_target(target: str) -> list[tuple[str, str]]:
    """Return the instructions that make an image: those of its own stage, after those of the stage that it rests on."""
    stages: dict[str, list[tuple[str, str]]] = {}
    stage: list[tuple[str, str]] = []
    for name, arguments in read_dockerfile():
        if name == "FROM":
            origin, _, own = arguments.partition(" AS ")
            stage = stages[own] = list(stages.get(origin, []))
        stage.append((name, arguments))
    return stages[target]


def last_instruction(target: str, name: str) -> str:
    """Return the arguments of the last instruction of this name."""
    return [arguments for instruction, arguments in read_target(target) if instruction == name][-1]


def dockerfile_argument(name: str) -> str:
    """Return the default of an argument of the build."""
    defaults = dict(arguments.partition("=")[::2] for kind, arguments in read_dockerfile() if kind == "ARG")
    return defaults[name]


def dockerfile_command(target: str) -> list[str]:
    """Return the entry point of an image that is built here."""
    entry_point: list[str] = json.loads(last_instruction(target, "ENTRYPOINT"))
    return entry_point


def dockerfile_environment(target: str) -> dict[str, str]:
    """Return the variables of an image."""
    environments = [arguments for instruction, arguments in read_target(target) if instruction == "ENV"]
    return dict(re.findall(r"(\w+)=(\S+)", " ".join(environments)))

"""Choices of earlier starts: a file for each repository and error budget, valid for one machine and one export."""

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from lychee_server.execution.choice import Choice
from lychee_server.execution.device import installed_builds
from lychee_server.execution.measurement import Task
from lychee_server.execution.onnx_sessions import (
    GPU_INFORMATION,
    ISA_VARIABLE,
    available_cpus,
    read_cpuinfo,
    read_gpus,
)

FOLDER = "execution"
_VISIBLE_GPUS = "CUDA_VISIBLE_DEVICES"
_DIGITS = 16


def describe_circumstances(task: Task) -> dict[str, str]:
    """Return everything that a choice depends on, by what it is called in messages."""
    models = {
        name: (each.path, each.threads, each.choose, _stamp(Path(each.path))) for name, each in task.models.items()
    }
    ensembles = {name: [asdict(step) for step in steps] for name, steps in task.ensembles.items()}
    export = {"models": models, "ensembles": ensembles, "rows": _stamp(Path(task.rows_path))}
    own_code = sorted(Path(__file__).parent.glob("*.py"))
    return {
        "CPU": _hash(_cpu_lines()),
        "number of CPUs": str(available_cpus()),
        ISA_VARIABLE: os.environ.get(ISA_VARIABLE, ""),
        "GPU or driver": _hash("\n".join([*read_gpus(), _driver(), os.environ.get(_VISIBLE_GPUS, "")])),
        "version of ONNX Runtime": ", ".join(f"{name} {version}" for name, version in installed_builds().items()),
        "version of this server": _hash("".join(path.read_text(encoding="utf-8") for path in own_code)),
        "export": _hash(json.dumps(export, sort_keys=True)),  # protobuf's maps have another order in every process
    }


def recall(cache_dir: Path, task: Task, circumstances: Mapping[str, str]) -> tuple[dict[str, Choice] | None, str]:
    """Return what was chosen in the same circumstances; else None, and in what they differ, if anything is known."""
    try:
        data = json.loads(_path(cache_dir, task).read_text(encoding="utf-8"))
        known = dict(data["circumstances"])
        choices = {model: Choice(**choice) for model, choice in data["choices"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None, ""
    changed = [name for name, value in circumstances.items() if known.get(name) != value]
    if changed:
        return None, f"another {' and '.join(changed)}"
    return choices, ""


def remember(cache_dir: Path, task: Task, circumstances: Mapping[str, str], choices: Mapping[str, Choice]) -> str:
    """Write the choices down, and return why that failed, if it did."""
    path = _path(cache_dir, task)
    content = {"circumstances": circumstances, "choices": {name: asdict(choice) for name, choice in choices.items()}}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".choice-")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(content, file, indent=1)
        os.replace(name, path)
    except OSError as error:
        return f"{path.parent} cannot be written ({error.strerror})"
    return ""


def _path(cache_dir: Path, task: Task) -> Path:
    return cache_dir / FOLDER / f"{_hash(f'{task.rows_path} {task.error_budget} {task.device}')}.json"


def _cpu_lines() -> str:
    """Return what names the CPU and its instructions, of the first one."""
    first = read_cpuinfo().partition("\n\n")[0]
    names = ("vendor_id", "cpu family", "model", "stepping", "flags", "Features")
    return "\n".join(line for line in first.splitlines() if line.partition(":")[0].strip().startswith(names))


def _driver() -> str:
    path = GPU_INFORMATION.with_name("version")
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _stamp(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_size, found.st_mtime_ns


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]

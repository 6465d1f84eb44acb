"""What the comparison needs before it can measure, made once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

from lychee_client.repository import ASSETS_MODEL
from lychee_server.memory import available_memory_bytes

from .contestants import Place
from .environments import PreparationError

__all__ = ["check", "prepare"]

_LEAST_MEMORY_BYTES: Final = 9e9
"""The memory of all servers together, started at the same time."""


def prepare(place: Place, alternatives: tuple[str, ...]) -> None:
    """Make environments, checkpoint and repository; what is there stays.

    Raises:
        PreparationError: Something cannot be made.
    """
    place.folder.mkdir(parents=True, exist_ok=True)
    for environment in dict.fromkeys(place.environment(name) for name in alternatives):
        print(f"environment {environment.name} ...", flush=True)
        environment.prepare()
    if not (place.checkpoint / "config.json").is_file():
        from .checkpoint import build_checkpoint  # torch takes seconds, and only this needs it

        print("checkpoint ...", flush=True)
        build_checkpoint(place.checkpoint)
    if not is_exported(place):
        command = [str(Path(sys.executable).parent / "lychee"), "export", str(place.checkpoint)]
        command += ["--repository", str(place.repository), "--precision", place.precision]
        if subprocess.run(command).returncode:
            raise PreparationError(f"{' '.join(command)} failed; its messages are above")


def check(place: Place, alternatives: tuple[str, ...]) -> None:
    """Refuse to measure before everything is there.

    Raises:
        PreparationError: Something is missing.
    """
    for name in alternatives:
        place.environment(name).check()
    if not is_exported(place):
        raise PreparationError(
            f"{place.repository} is not there; run `python -m lychee_loadtest.compare.run --prepare "
            f"--precision {place.precision}` once"
        )
    available = available_memory_bytes()
    if available < _LEAST_MEMORY_BYTES:
        raise PreparationError(
            f"{available / 1e9:.1f} GB of memory are available, expected {_LEAST_MEMORY_BYTES / 1e9:g} GB for all "
            "servers together; end other programs, or measure fewer with --alternatives"
        )


def is_exported(place: Place) -> bool:
    """Whether the repository is complete: `lychee export` writes the assets last."""
    return (place.repository / ASSETS_MODEL / "config.pbtxt").is_file()

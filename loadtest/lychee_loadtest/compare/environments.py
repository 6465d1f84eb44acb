"""An environment of its own for each alternative, made once and recognised by its requirements."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["Environment", "PreparationError"]

_REQUIREMENTS: Final = Path(__file__).parent / "requirements"
_STAMP: Final = "requirements.sha256"
_PIP: Final = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps")


class PreparationError(Exception):
    """Something that the comparison needs is not there, or could not be made."""


@dataclass(frozen=True)
class Environment:
    """A virtual environment below a folder, with the packages of one requirements file.

    Args:
        name: The name of the environment's own folder.
        folder: The folder that holds the environment's own folder.
        requirements: The file that names every package with its version, torch first; by default
            `requirements/<name>.txt` beside this module.
    """

    name: str
    folder: Path
    requirements: Path | None = None

    @property
    def path(self) -> Path:
        """The environment's own folder."""
        return self.folder / self.name

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.path / "bin" / "python"

    @property
    def requirements_path(self) -> Path:
        """The file that says what is in it."""
        return self.requirements or _REQUIREMENTS / f"{self.name}.txt"

    def digest(self) -> str:
        """Return what the stamp of a finished environment holds: Python's version and the requirements' hash."""
        content = hashlib.sha256(self.requirements_path.read_bytes()).hexdigest()
        return f"{sys.version_info.major}.{sys.version_info.minor} {content}"

    def is_ready(self) -> bool:
        """Whether it is finished and was made from these requirements."""
        stamp = self.path / _STAMP
        return stamp.is_file() and stamp.read_text(encoding="ascii") == self.digest()

    def check(self) -> None:
        """Refuse an environment that is absent, half made or outdated.

        Raises:
            PreparationError: It is.
        """
        if not self.is_ready():
            raise PreparationError(
                f"{self.path} is not the finished environment of {self.requirements_path.name}; "
                "run `python -m lychee_loadtest.compare.run --prepare` once, which needs a package index"
            )

    def prepare(self) -> None:
        """Make it, from nothing; nothing happens if it is ready.

        Raises:
            PreparationError: A package cannot be installed.
        """
        if self.is_ready():
            return
        shutil.rmtree(self.path, ignore_errors=True)
        # Every package is pinned, so nothing is resolved: a resolver would bring another torch, or torchvision.
        commands = (
            [sys.executable, "-m", "venv", str(self.path)],
            [str(self.python), *_PIP, "--requirement", str(self.requirements_path)],
        )
        for command in commands:
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            if done.returncode:
                tail = "\n".join(done.stdout.splitlines()[-5:])
                raise PreparationError(f"{' '.join(command)} ended with exit code {done.returncode}:\n{tail}")
        (self.path / _STAMP).write_text(self.digest(), encoding="ascii")

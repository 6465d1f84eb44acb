"""A finished environment is recognised; everything else is refused or made again."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from lychee_loadtest.compare.contestants import ALTERNATIVES, Place
from lychee_loadtest.compare.environments import Environment, PreparationError


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    requirements = tmp_path / "empty.txt"
    requirements.write_text("# nothing\n")
    return Environment("empty", tmp_path / "environments", requirements)


def stamp(environment: Environment) -> None:
    environment.path.mkdir(parents=True, exist_ok=True)
    (environment.path / "requirements.sha256").write_text(environment.digest())


def test_absent_environment_is_refused_with_the_command_that_makes_it(environment: Environment) -> None:
    with pytest.raises(PreparationError, match=r"compare\.run --prepare"):
        environment.check()


def test_half_made_environment_is_not_ready(environment: Environment) -> None:
    environment.path.mkdir(parents=True)
    assert not environment.is_ready()


def test_changed_requirements_outdate_an_environment(environment: Environment) -> None:
    stamp(environment)
    environment.check()
    environment.requirements_path.write_text("torch==2.13.0\n")
    assert not environment.is_ready()


def test_ready_environment_is_left_alone(environment: Environment) -> None:
    stamp(environment)
    environment.prepare()
    assert not environment.python.exists()


def test_package_that_cannot_be_installed_leaves_no_stamp_and_says_why(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = subprocess.CompletedProcess([], 1, stdout="No matching distribution found")
    monkeypatch.setattr(subprocess, "run", lambda *arguments, **options: failed)
    with pytest.raises(PreparationError, match="exit code 1:\nNo matching distribution"):
        environment.prepare()
    assert not environment.is_ready()


@pytest.mark.parametrize("name", ALTERNATIVES)
def test_every_requirement_is_pinned_and_torch_is_the_same_for_all(name: str, tmp_path: Path) -> None:
    lines = Place(tmp_path, "fp32", tmp_path).environment(name).requirements_path.read_text().splitlines()
    requirements = [line for line in lines if not line.startswith("#")]
    assert requirements[0] == "torch==2.13.0"
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line) for line in requirements)
    names = [line.partition("==")[0].lower() for line in requirements]
    assert len(set(names)) == len(names)
    assert not {"torchvision", "timm"} & set(names)
    assert "pillow==12.3.0" in requirements

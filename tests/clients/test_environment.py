"""The environment of these tests is what its list says, and light."""

from __future__ import annotations

from importlib.metadata import distributions, version
from pathlib import Path

HEAVY = ("torch", "torchvision", "transformers", "sentence-transformers")
LIST = Path(__file__).parent / "requirements.txt"


def test_what_is_installed_is_what_is_listed() -> None:
    pins = dict(line.split("==") for line in LIST.read_text(encoding="utf-8").splitlines() if "==" in line)
    assert {name: version(name) for name in pins} == pins


def test_nothing_heavy_is_there() -> None:
    installed = {each.metadata["Name"] for each in distributions()}
    assert not installed & set(HEAVY)
    assert not [name for name in installed if name.startswith("nvidia-c")]

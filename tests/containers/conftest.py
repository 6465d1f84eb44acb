"""One engine, its images and one stack for all tests of this folder; `make containers` runs them, which sets
LYCHEE_CONTAINERS.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from deployment import ROOT, dockerfile_argument, read_services
from lychee_server import defaults

from containers.engine import Engine
from containers.stack import WHEELS, Stack

IS_CONTAINERS = os.environ.get("LYCHEE_CONTAINERS") == "1"
BUILT_HERE = ("gateway", "export", "locust")
STAND_IN_FOR = ("triton", "redis", "prometheus")
BASE_TIMEOUT_S = 1200


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs an engine, as root, unless it was asked for."""
    if not IS_CONTAINERS:
        for item in items:
            # The items are those of all folders.
            if not item.path.is_relative_to(Path(__file__).parent):
                continue
            item.add_marker(pytest.mark.skip(reason="needs a Docker engine and root; `make containers` runs it"))


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """Return an engine."""
    with Engine() as engine:
        yield engine


@pytest.fixture(scope="session")
def images(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Build all images, after what stands in for those that the engine lacks; nothing runs yet."""
    base = f"python:{dockerfile_argument('PYTHON_TAG')}"
    made = []
    if not has_image(engine, base):
        archive = defaults.cache_dir() / "containers" / f"{base.replace(':', '-')}.tar"
        if not archive.exists():
            script = ROOT / "deploy" / "containers" / "python-base.sh"
            subprocess.run([script, archive], check=True, timeout=BASE_TIMEOUT_S)
        engine.run("import", str(archive), base)
        made.append(base)
    tags = {name: image_of(name) for name in STAND_IN_FOR}
    absent = frozenset(name for name, tag in tags.items() if not has_image(engine, tag))
    made += [tags[name] for name in absent]
    stack = Stack(engine, tmp_path_factory.mktemp("compose"), absent)
    made += [stack.services[name]["image"] for name in BUILT_HERE] + [WHEELS]
    try:
        stack.build("wheels")
        stack.build(*BUILT_HERE, *absent)
        yield stack
    finally:
        stack.remove()
        if not engine.is_own:
            engine.run("rmi", "--force", *made, check=False)


@pytest.fixture(scope="session")
def stack(images: Stack) -> Stack:
    """Fill the volume with the bundled model, as a user does: by a real export in its container."""
    images.compose("run", "--rm", "export")
    return images


@pytest.fixture(scope="session")
def photos() -> Path:
    """Return the folder of the example photos."""
    return ROOT / "examples" / "catalogue" / "photos"


def image_of(service: str) -> str:
    """Return the image that docker-compose.yml names for a service."""
    return str(read_services()[service]["image"])


def has_image(engine: Engine, name: str) -> bool:
    """Say whether the engine has an image."""
    return engine.run("image", "inspect", name, check=False).returncode == 0

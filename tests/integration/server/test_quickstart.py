"""`lychee quickstart` as a newcomer runs it: from installed wheels alone, in an empty folder, and interrupted."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from lychee_server import state
from lychee_server.supervision import stop_everything

pytestmark = pytest.mark.triton
LYCHEE = str(Path(sys.executable).parent / "lychee")
LONG_S = 1500.0  # an export takes minutes on a busy machine


@pytest.fixture(autouse=True)
def _stop_whatever_is_left(own_state: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SSH_CONNECTION", "SSH_TTY"):
        monkeypatch.delenv(name, raising=False)
    yield
    stop_everything(state.read_state())


@pytest.fixture(scope="module")
def installed(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheels of all that is served with, beside what they need; return the program `lychee`."""
    folder = tmp_path_factory.mktemp("wheels")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    sources = [str(root / name) for name in ("client", "evaluate", "export", "server")]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), *sources]
    subprocess.run(build, check=True, capture_output=True, timeout=LONG_S)
    environment = folder / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True, timeout=LONG_S)
    packages = next(environment.glob("lib/python*/site-packages"))
    wheels = [str(path) for path in folder.glob("*.whl")]
    python = str(environment / "bin" / "python")
    install = [*pip, "--python", python, "install", "--no-deps", "--no-index", *wheels]
    subprocess.run(install, check=True, timeout=LONG_S)
    # A folder that a .pth file names does not have its own .pth files read, so the source tree is not among it.
    (packages / "others.pth").write_text(f"{sysconfig.get_path('purelib')}\n", encoding="utf-8")
    return environment / "bin" / "lychee"


def test_from_wheels_alone_to_three_things_that_work(installed: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    seen = tmp_path / "seen"
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {seen}\n', encoding="utf-8")
    browser.chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"BROWSER": str(browser)}

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=empty, env=environment, capture_output=True, text=True, timeout=LONG_S, check=False
        )

    started = run(str(installed), "quickstart", "--port", "0")
    assert started.returncode == 0, started.stdout + started.stderr
    assert list(empty.iterdir()) == []
    page = re.search(r"1\. The page:  (\S+)", started.stdout)
    assert page is not None
    assert seen.read_text(encoding="utf-8").strip() == page[1]
    curl = re.search(r"^curl .*\n.*$", started.stdout, re.MULTILINE)
    python = re.search(r"^\S+ - <<'END'\n.*?^END$", started.stdout, re.MULTILINE | re.DOTALL)
    assert curl is not None
    assert python is not None
    assert '"results"' in run("sh", "-c", curl[0]).stdout
    ranked = run("sh", "-c", python[0])
    assert ranked.stdout.splitlines()[0].startswith("2 image 0.9"), ranked.stderr
    assert ranked.stdout.splitlines()[0].endswith("accept")
    assert "<html" in run("curl", "-s", page[1]).stdout

    again = run(str(installed), "quickstart", "--no-browser")
    assert "a server runs already, and is left as it is" in again.stdout
    assert page[1] in again.stdout
    assert run(str(installed), "stop").returncode == 0


def test_an_interrupted_export_leaves_no_process_and_no_half(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    command = [LYCHEE, "quickstart", "--port", "0", "--repository", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        deadline = time.monotonic() + LONG_S
        while not (tmp_path / "models.partial").exists():
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.05)
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=LONG_S)[0]
    assert process.returncode == 130, said
    assert "lychee: interrupted" in said
    assert children
    assert psutil.wait_procs(children, timeout=LONG_S)[1] == []
    assert list(tmp_path.glob("models*")) == []
    assert state.read_state() is None

"""`lychee quickstart` without a Triton: what it finds, asks for, refuses, hands on and prints."""

from __future__ import annotations

import json
import os
import re
import socket
from pathlib import Path
from typing import Any

import pytest
import typer
from fakes.dual_encoder import manifest_json
from fakes.server_state import make_state, make_triton
from lychee_server import cli, state
from lychee_server.cli import quickstart
from lychee_server.errors import RepositoryError
from lychee_server.processes import ProcessId
from typer.testing import CliRunner

OWN = ProcessId.of(os.getpid())
VERSION = "1.2.3"


class Machine:
    """What the commands below would do, and were asked to do."""

    def __init__(self) -> None:
        self.ran: list[list[str]] = []
        self.interrupted: str | None = None

    def run(self, arguments: list[str], doing: str, *, hidden: str | None = None) -> None:
        self.ran.append(arguments)
        if arguments[0] == "export":
            write_export(Path(arguments[3]), VERSION)
        if arguments[0] == self.interrupted:
            raise KeyboardInterrupt
        if arguments[0] == "load":
            set_running()


def write_export(folder: Path, version: str, model: str = "lychee-mini") -> None:
    """Write as much of an export as is looked at."""
    text = manifest_json(
        model_id=model,
        revision="1",
        precision="fp32",
        artifacts={"tokenizer": "0" * 64},
        created_by={"lychee-rerank-export": version},
    )
    path = folder / "client_assets" / "1" / "manifest.json"
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="utf-8")


def set_running(*, gateway: bool = True) -> None:
    """Leave the state of a server that runs."""
    beside = state.GatewayState(OWN.pid, OWN.start_ticks, "0.0.0.0", 4711, "log") if gateway else None
    known = make_state(make_triton(pid=OWN.pid, start_ticks=OWN.start_ticks), gateway=beside)
    state.write_state(known)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    """Return a machine that has everything, and no browser."""
    fake = Machine()
    monkeypatch.setattr(quickstart, "_run", fake.run)
    monkeypatch.setattr(quickstart, "_version", lambda distribution: VERSION)
    monkeypatch.setattr(quickstart, "check_repository", lambda folder: [])
    monkeypatch.setattr(quickstart, "read_problem", lambda host, port: None)
    monkeypatch.setattr(quickstart, "TRITON_PORTS", {"--http-port": free_port()})
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    for name in ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY", "SSH_CONNECTION", "SSH_TTY", "LYCHEE_GATEWAY_API_KEYS"):
        monkeypatch.delenv(name, raising=False)
    return fake


def start(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli_app(), ["quickstart", "--port", "0", *arguments])
    return result.exit_code, result.output


def cli_app() -> Any:
    app = typer.Typer()
    cli.register(app)
    return app


def test_it_exports_once_loads_and_prints_three_things(machine: Machine, tmp_path: Path) -> None:
    folder = tmp_path / "data" / "lychee-rerank" / "lychee-mini"
    code, output = start()
    assert code == 0, output
    partial = f"{folder}.partial"
    assert machine.ran == [
        ["export", "lychee-mini", "--repository", partial],
        ["load", "--repository", str(folder), "--port", "0"],
    ]
    assert (folder / "client_assets").is_dir()
    assert not Path(partial).exists()
    for expected in ("1/3", "2/3", "3/3", "1. The page:  http://127.0.0.1:4711\n", "curl -s ", "LycheeClient("):
        assert expected in output
    assert "no browser was opened: there is no display" in output
    state.clear_state()
    assert start()[0] == 0
    assert [each[0] for each in machine.ran] == ["export", "load", "load"]


def test_a_server_that_runs_is_left_alone(machine: Machine) -> None:
    set_running()
    code, output = start()
    assert (code, machine.ran) == (0, [])
    assert "a server runs already, and is left as it is" in output
    assert "1. The page:  http://127.0.0.1:4711\n" in output


def test_a_server_without_a_gateway_and_one_that_is_not_ready_are_named(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_running(gateway=False)
    code, output = start()
    assert (code, "without a gateway runs already" in output, "`lychee stop`" in output) == (1, True, True)
    set_running()
    monkeypatch.setattr(quickstart, "read_problem", lambda host, port: "waiting: for Triton")
    code, output = start()
    assert (code, "is not ready: waiting: for Triton" in output) == (1, True)
    assert machine.ran == []


@pytest.mark.parametrize(
    ("version", "complete", "why"),
    [("0.9", True, "made by version 0.9, and 1.2.3 is installed"), (VERSION, False, "is not complete")],
)
def test_an_export_of_another_version_or_a_damaged_one_is_replaced(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, complete: bool, why: str
) -> None:
    def check(folder: Path) -> list[str]:
        if not complete:
            raise RepositoryError("a file is missing")
        return []

    monkeypatch.setattr(quickstart, "check_repository", check)
    folder = tmp_path / "models"
    write_export(folder, version)
    (folder / "old").touch()
    code, output = start("--repository", str(folder))
    assert code == 0, output
    assert why in output
    assert machine.ran[0][0] == "export"
    assert not (folder / "old").exists()


@pytest.mark.parametrize("model", ["clip", None])
def test_a_folder_with_something_else_is_left_alone(machine: Machine, tmp_path: Path, model: str | None) -> None:
    folder = tmp_path / "models"
    if model is not None:
        write_export(folder, VERSION, model)
    else:
        folder.mkdir()
        (folder / "letter.txt").touch()
    code, output = start("--repository", str(folder))
    assert (code, machine.ran) == (1, [])
    assert f"holds {model or 'files that are no export'}; expected lychee-mini or an empty folder" in output
    assert f"lychee load --repository {folder}" in output


def test_what_is_not_installed_is_named_with_the_extra(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quickstart, "_version", lambda distribution: None)
    monkeypatch.setattr(quickstart, "find_spec", lambda module: None if module == "pytriton" else object())
    code, output = start()
    assert (code, machine.ran) == (2, [])
    expected = 'lychee-rerank-export and nvidia-pytriton are not installed; run: pip install "lychee-rerank[all]"'
    assert expected in output


def test_without_the_exporter_what_is_exported_is_served(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(quickstart, "_version", lambda distribution: None)
    write_export(tmp_path / "models", VERSION)
    assert start("--repository", str(tmp_path / "models"))[0] == 0
    assert [each[0] for each in machine.ran] == ["load"]


def test_a_taken_port_is_named_and_triton_takes_others(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        code, output = start("--port", str(port))
        assert (code, machine.ran) == (1, [])
        assert f"Port {port} on 127.0.0.1 is not free" in output
        assert "another port with --port (0: any that is free)" in output
        monkeypatch.setattr(quickstart, "TRITON_PORTS", {"--http-port": port, "--grpc-port": free_port()})
        code, output = start()
    assert code == 0, output
    assert f"Port {port} on 127.0.0.1 is not free" in output
    assert machine.ran[-1][-2:] == ["--http-port", "0"]


def test_ctrl_c_leaves_no_half_of_an_export(machine: Machine, tmp_path: Path) -> None:
    machine.interrupted = "export"
    code, output = start("--repository", str(tmp_path / "models"))
    assert (code, "lychee: interrupted" in output) == (130, True)
    assert list(tmp_path.glob("models*")) == []
    machine.interrupted = "load"
    assert start("--repository", str(tmp_path / "models"))[0] == 130
    assert (tmp_path / "models" / "client_assets").is_dir()


def test_a_failed_check_of_the_machine_ends_it(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    def check_disk(context: Any) -> Any:
        yield quickstart.CheckResult("disk", "warning", "little", "more")
        yield quickstart.CheckResult("disk", "failed", "nothing is free", "delete something")

    monkeypatch.setattr(quickstart, "CHECKS", dict.fromkeys(quickstart.MACHINE_CHECKS, check_disk))
    code, output = start()
    assert (code, machine.ran) == (1, [])
    assert "disk: warning: little -> more" in output
    assert "lychee: disk: nothing is free -> delete something" in output


def test_a_browser_is_opened_where_somebody_sits_before_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    set_running()
    seen = tmp_path / "seen"
    program = tmp_path / "browser"
    program.write_text(f'#!/bin/sh\necho "$1" >> {seen}\n', encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("BROWSER", str(program))
    assert "no browser" not in start()[1]
    assert seen.read_text(encoding="utf-8") == "http://127.0.0.1:4711\n"
    start("--no-browser")
    monkeypatch.setenv("SSH_CONNECTION", "1 2 3 4")
    assert "no browser was opened: this is a session over SSH" in start()[1]
    assert seen.read_text(encoding="utf-8").count("\n") == 1


def test_keys_are_asked_for_and_never_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    set_running()
    monkeypatch.setenv("LYCHEE_GATEWAY_API_KEYS", "secret-4711")
    output = start()[1]
    assert "secret-4711" not in output
    assert '-H "Authorization: Bearer $LYCHEE_API_KEY"' in output
    body = re.search(r"-d '(.*)'", output)
    assert body is not None
    assert len(json.loads(body[1])["documents"]) == 2

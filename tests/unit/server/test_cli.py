"""The commands, without a Triton."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import lychee_client
import pytest
import typer
from lychee_server import cli
from typer.testing import CliRunner


class FakeServer:
    """Starts at once, and remembers that it was stopped."""

    pid = None
    marker = "lychee_fake_"
    host, http_port, metrics_port = "127.0.0.1", 1, 3
    grpc_url, http_url, metrics_url = "127.0.0.1:2", "127.0.0.1:1", "http://127.0.0.1:3/metrics"
    repository = log_path = "somewhere"
    stopped = False

    def __init__(self, repository: Path, **options: Any) -> None:
        self.models = ["client_assets"]

    def start(self) -> None:
        type(self).pid = 1

    def wait_until_ready(self, timeout_s: float) -> None:
        pass

    def stop(self) -> None:
        type(self).stopped = True


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that runs a command line with a fake server, and what became of that."""
    app = typer.Typer()
    cli.register(app)
    server = type("Server", (FakeServer,), {})
    monkeypatch.setattr(cli, "TritonServer", server)
    monkeypatch.setattr(cli, "read_models", lambda *address: ())
    monkeypatch.setattr(cli.state, "write_state", lambda state: None)
    monkeypatch.setattr(cli.state.ServerState, "of", lambda server: None)
    return lambda *arguments: (CliRunner().invoke(app, arguments), server)


def set_golden_report(monkeypatch: pytest.MonkeyPatch, **report: Any) -> None:
    class Client:
        def __init__(self, url: str) -> None:
            self.url = url

        def __enter__(self) -> Client:
            return self

        def __exit__(self, *exception: object) -> None:
            pass

        def check_golden_pairs(self) -> Any:
            if "error" in report:
                raise report["error"]
            return types.SimpleNamespace(**report)

    monkeypatch.setattr(lychee_client, "LycheeClient", Client)


def test_load_accepts_scores_within_the_tolerance(runner: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    set_golden_report(monkeypatch, passed=True, max_abs_error=0.001, tolerance=0.02)
    result, server = runner("load")
    assert result.exit_code == 0, result.output
    assert "golden pairs: off by 0.001, at most 0.02 allowed" in result.output
    assert not server.stopped


def test_load_stops_a_server_whose_scores_drifted(runner: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    set_golden_report(monkeypatch, passed=False, max_abs_error=0.3, tolerance=0.02)
    result, server = runner("load")
    assert result.exit_code == 1
    assert "off by 0.3" in result.output
    assert "--config-name cpu" in result.output
    assert server.stopped


def test_load_stops_a_server_that_cannot_score(runner: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    set_golden_report(monkeypatch, error=lychee_client.LycheeError("no manifest"))
    result, server = runner("load")
    assert result.exit_code == 1
    assert "could not be scored: no manifest" in result.output
    assert server.stopped


def test_stop_and_status_without_a_server(runner: Any) -> None:
    result, _ = runner("stop")
    assert (result.exit_code, result.output) == (0, "No server is running.\n")
    result, _ = runner("status")
    assert result.exit_code == 3
    result, _ = runner("status", "--json")
    assert (result.exit_code, result.output) == (3, '{"running": false}\n')


def test_load_names_a_missing_repository(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    app = typer.Typer()
    cli.register(app)
    monkeypatch.setenv("LYCHEE_REPOSITORY", str(tmp_path / "nowhere"))
    result = CliRunner().invoke(app, ["load"])
    assert result.exit_code == 1
    assert "nowhere does not exist" in result.output

"""The commands, without a Triton."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any, ClassVar

import lychee_client
import pytest
import typer
from fakes.dual_encoder import FakeTransport
from fakes.server_state import make_state
from lychee_client.cli.group import CommandGroup
from lychee_server import cli, golden_pairs
from lychee_server.cli import loading
from lychee_server.errors import LycheeServerError, PortInUseError, ServerStartError
from lychee_server.gateway.process import GatewayChoice
from typer.testing import CliRunner


class FakeServer:
    """Starts at once, and remembers that it was stopped."""

    pid = None
    marker, key = "lychee_fake_", "key"
    host, http_port, metrics_port = "127.0.0.1", 1, 3
    grpc_url, http_url, metrics_url = "127.0.0.1:2", "127.0.0.1:1", "http://127.0.0.1:3/metrics"
    repository = log_path = "somewhere"
    export = types.SimpleNamespace(choice_note="", variant_note="", version=7, config_name=None, prepare=lambda: None)
    stopped = False

    options: ClassVar[dict[str, Any]] = {}

    def __init__(self, repository: Path, **options: Any) -> None:
        self.models = ["client_assets"]
        type(self).options = options

    def launch(self) -> None:
        type(self).pid = 1

    def wait_until_ready(self, timeout_s: float) -> None:
        pass

    def calm_log(self) -> None:
        pass

    def stop(self) -> None:
        type(self).stopped = True


class FakeGateway:
    """Starts at once, and remembers what was asked for."""

    pid = None
    url = "http://127.0.0.1:7860"
    choice: GatewayChoice
    problems: ClassVar[list[Exception]] = []
    stopped = False

    def __init__(self, choice: GatewayChoice) -> None:
        type(self).choice = choice
        self.has_page = choice.web

    def listen(self) -> None:
        for problem in self.problems:
            if isinstance(problem, PortInUseError):
                raise problem

    def start(self, server: FakeServer, models: Path | None) -> None:
        type(self).models = models
        type(self).pid = 2

    def wait_until_ready(self, timeout_s: float) -> None:
        for problem in self.problems:
            raise problem

    def stop(self) -> None:
        type(self).stopped = True


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> type[FakeGateway]:
    """Return the class of the gateways that `lychee load` starts."""
    gateway = type("Gateway", (FakeGateway,), {"problems": []})
    monkeypatch.setattr(loading, "GatewayProcess", gateway)
    return gateway


@pytest.fixture(autouse=True)
def _one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep `lychee load` from splitting the process of the tests."""
    monkeypatch.setattr(loading.Guard, "split", lambda guard: None)
    monkeypatch.setattr(loading.Guard, "say_ready", lambda guard: None)


def supervise(supervised: Any, *, most_restarts: int, **options: Any) -> None:
    """Return at once; a real one does not return. Without a restart to spare it gives up."""
    if most_restarts == 0:
        raise LycheeServerError("triton failed; gave up")


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch, gateway: type[FakeGateway]) -> Any:
    """Return a function that runs a command line with a fake server, and what became of that."""
    app = typer.Typer(cls=CommandGroup)
    cli.register(app)
    server = type("Server", (FakeServer,), {})
    monkeypatch.setattr(loading, "TritonServer", server)
    monkeypatch.setattr(loading, "read_models", lambda *address: ())
    monkeypatch.setattr(loading.ServedRepository, "open_metrics", lambda served: None)
    monkeypatch.setattr(loading.SupervisedServer, "publish", lambda supervised: None)
    monkeypatch.setattr(loading.SupervisedServer, "supervise", supervise)
    return lambda *arguments: (CliRunner().invoke(app, arguments), server)


def set_golden_report(monkeypatch: pytest.MonkeyPatch, **report: Any) -> None:
    class Client:
        def __init__(self, url: str, *, model: None) -> None:
            self.url = url

        def __enter__(self) -> Client:
            return self

        def __exit__(self, *exception: object) -> None:
            pass

        def manifest(self) -> lychee_client.Manifest:
            with lychee_client.LycheeClient(transport=FakeTransport()) as client:
                return client.manifest()

        def check_golden_pairs(self) -> Any:
            if "error" in report:
                raise report["error"]
            return types.SimpleNamespace(**report)

    monkeypatch.setattr(golden_pairs, "LycheeClient", Client)


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
    assert "--error-budget exact" in result.output
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
    app = typer.Typer(cls=CommandGroup)
    cli.register(app)
    monkeypatch.setenv("LYCHEE_REPOSITORY", str(tmp_path / "nowhere"))
    result = CliRunner().invoke(app, ["load", "--port", "0", "--metrics-port", "0"])
    assert result.exit_code == 2
    assert "nowhere does not exist" in result.output


def test_a_variable_of_the_gateway_that_cannot_be_used_is_found_before_triton_starts(
    monkeypatch: pytest.MonkeyPatch, runner: Any
) -> None:
    monkeypatch.setenv("LYCHEE_GATEWAY_POLICY", "lenient")
    result, server = runner("load")
    assert result.exit_code == 2
    assert "lychee: LYCHEE_GATEWAY_POLICY is 'lenient'; expected one of strict" in result.output
    assert server.pid is None


def test_load_that_gives_up_fails_and_stops_what_is_left(runner: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    set_golden_report(monkeypatch, passed=True, max_abs_error=0.001, tolerance=0.02)
    result, server = runner("load", "--max-restarts", "0")
    assert (result.exit_code, server.stopped) == (1, True)
    assert "gave up" in result.output


def test_status_says_why_a_server_gave_up(runner: Any) -> None:
    cli.state.write_state(make_state(gave_up="it failed too often."))
    result, _ = runner("status")
    assert (result.exit_code, result.output) == (3, "No server is running: it failed too often.\n")


@pytest.fixture
def _right_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    set_golden_report(monkeypatch, passed=True, max_abs_error=0.001, tolerance=0.02)


@pytest.mark.usefixtures("_right_scores")
def test_load_passes_its_options_to_the_gateway_and_prints_where_it_is(runner: Any, gateway: type[FakeGateway]) -> None:
    result, _ = runner("load", "--host", "0.0.0.0", "--port", "7000", "--max-img-size", "128", "--log-level", "ERROR")
    assert result.exit_code == 0, result.output
    assert gateway.choice == GatewayChoice("0.0.0.0", 7000, True, 128, "ERROR")
    assert "page     http://127.0.0.1:7860\n" in result.output
    assert "REST     http://127.0.0.1:7860/v1/rerank\n" in result.output
    assert "every image as" in result.output
    assert "max_img_size has no effect" in result.output


@pytest.mark.usefixtures("_right_scores")
@pytest.mark.parametrize(
    ("arguments", "levels"),
    [
        ((), ("WARNING", None)),  # the gateway's own variable may say it
        (("--log-level", "debug"), ("DEBUG", "DEBUG")),
        (("--log-level", "DEBUG"), ("DEBUG", "DEBUG")),
        (("--log-level", "Verbose"), ("DEBUG", "DEBUG")),
        (("--log-level", "error"), ("ERROR", "ERROR")),
    ],
)
def test_load_takes_a_log_level_in_any_case(
    runner: Any, gateway: type[FakeGateway], arguments: tuple[str, ...], levels: tuple[str, str | None]
) -> None:
    result, server = runner("load", *arguments)
    assert result.exit_code == 0, result.output
    assert (server.options["log_level"], gateway.choice.log_level) == levels


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--http-port 9001 --grpc-port 9001", "--http-port and --grpc-port are both 9001; expected different ports"),
        ("--metrics-port 7860", "--metrics-port and --port are both 7860"),
        ("--host 0.0.0.0 --port 8001", "--grpc-port and --port are both 8001"),
        ("--host localhost --port 8001", "--grpc-port and --port are both 8001"),
        ("--host 192.0.2.7", "--host is '192.0.2.7', which is no address of this machine"),
        ("--triton-host 192.0.2.7", "--triton-host is '192.0.2.7', which is no address of this machine"),
        ("--host nowhere.invalid", "--host is 'nowhere.invalid', which is the name of no address"),
        ("--triton-host nowhere.invalid", "--triton-host is 'nowhere.invalid', which is the name of no address"),
    ],
)
def test_addresses_that_cannot_be_had_are_refused_by_name_before_anything_starts(
    runner: Any, gateway: type[FakeGateway], arguments: str, message: str
) -> None:
    result, server = runner("load", *arguments.split())
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr
    assert (server.pid, gateway.pid) == (None, None)


@pytest.mark.usefixtures("_right_scores")
def test_without_a_gateway_its_port_is_in_nobodys_way(runner: Any) -> None:
    assert runner("load", "--no-gateway", "--port", "8001")[0].exit_code == 0


@pytest.mark.usefixtures("_right_scores")
def test_load_hands_the_device_on_from_its_option_or_the_environment(
    runner: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert runner("load")[1].options["device"] == "auto"
    monkeypatch.setenv("LYCHEE_DEVICE", "cuda")
    assert runner("load")[1].options["device"] == "cuda"
    assert runner("load", "--device", "cpu")[1].options["device"] == "cpu"
    result, _ = runner("load", "--device", "gpu")
    assert result.exit_code == 2
    assert "'gpu' is not one of 'auto', 'cpu', 'cuda'" in " ".join(result.output.replace("│", " ").split())


@pytest.mark.usefixtures("_right_scores")
def test_load_without_the_page_keeps_rest(runner: Any, gateway: type[FakeGateway]) -> None:
    result, _ = runner("load", "--no-web")
    assert not gateway.choice.web
    assert "REST " in result.output
    assert "docs     http://127.0.0.1:7860/docs\n" in result.output


@pytest.mark.usefixtures("_right_scores")
def test_load_without_what_the_page_needs_says_what_to_install(
    runner: Any, gateway: type[FakeGateway], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lychee_server.web.find_spec", lambda name: None)
    result, _ = runner("load")
    assert result.exit_code == 0
    assert not gateway.choice.web
    assert "pip install 'lychee-rerank-server[web]'" in result.output


@pytest.mark.usefixtures("_right_scores")
def test_load_without_a_gateway_starts_triton_alone(runner: Any, gateway: type[FakeGateway]) -> None:
    result, _ = runner("load", "--no-gateway")
    assert result.exit_code == 0
    assert gateway.pid is None
    assert "7860" not in result.output


@pytest.mark.usefixtures("_right_scores")
def test_a_gateway_that_does_not_get_ready_stops_both(runner: Any, gateway: type[FakeGateway]) -> None:
    gateway.problems = [ServerStartError("The gateway was not ready after 1 s: no scores", log_path=Path("x.log"))]
    result, server = runner("load")
    assert result.exit_code == 1
    assert "no scores" in result.output
    assert (gateway.stopped, server.stopped) == (True, True)


def test_a_taken_port_is_found_before_triton_starts(runner: Any, gateway: type[FakeGateway]) -> None:
    gateway.problems = [PortInUseError("Port 7860 is not free: nginx (pid 7) holds it", port=7860)]
    result, server = runner("load")
    assert result.exit_code == 1
    assert "nginx (pid 7)" in result.output
    assert server.pid is None


@pytest.mark.usefixtures("_right_scores")
def test_flash_attn_says_what_it_does(runner: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = types.SimpleNamespace(
        name="text_encoder", provider="CPUExecutionProvider", precision="fp32", precision_reason=""
    )
    monkeypatch.setattr(loading, "read_models", lambda *address: (encoder,))
    result, _ = runner("load", "--flash-attn")
    assert result.exit_code == 0
    assert "--flash-attn: no effect" in result.output
    assert "CPUExecutionProvider" in result.output


def test_help_says_why_there_is_no_share(runner: Any) -> None:
    result, _ = runner("load", "--help")
    assert "no `lychee share`" in " ".join(result.output.replace("│", " ").split())


def test_a_disk_that_is_full_is_told_without_a_traceback(runner: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device", "/state")

    monkeypatch.setattr(cli.state, "claim", fail)
    result, server = runner("load")
    assert (result.exit_code, result.stderr) == (1, "lychee: /state: No space left on device\n")
    assert server.pid is None

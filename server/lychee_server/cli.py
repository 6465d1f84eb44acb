"""The commands `lychee load`, `lychee stop`, `lychee status` and `lychee gateway`."""

import contextlib
import importlib.util
import json
import signal
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer
from lychee_client import ConfigurationError, LycheeClient, LycheeError, Manifest
from lychee_client.manifest import DEFAULT_ERROR_BUDGET
from lychee_client.repository import ASSETS_MODEL

from lychee_server import defaults, load_report, processes, state
from lychee_server.errors import AlreadyRunningError, LycheeServerError
from lychee_server.execution import format_budget, parse_budget
from lychee_server.gateway.cli import gateway as gateway_command
from lychee_server.gateway.cli import setting
from lychee_server.gateway.process import GatewayChoice, GatewayProcess
from lychee_server.gateway.settings import DEFAULT_PORT, GatewaySettings
from lychee_server.status import read_models, read_status
from lychee_server.status_text import describe_server
from lychee_server.termination import raise_on_sigterm
from lychee_server.triton import TritonServer

EXIT_UNHEALTHY = 1
EXIT_NOT_RUNNING = 3
WATCH_INTERVAL_S = 0.2


def register(app: typer.Typer) -> None:
    """Add the commands to the `lychee` application."""
    app.command()(load)
    app.command()(stop)
    app.command()(status)
    app.command("gateway")(gateway_command)


def load(
    repository: Annotated[
        Path, typer.Option(envvar="LYCHEE_REPOSITORY", help="Folder that `lychee export` wrote.")
    ] = Path("model_repository"),
    host: Annotated[str, setting("host")] = defaults.DEFAULT_HOST,
    port: Annotated[int, setting("port")] = DEFAULT_PORT,
    web: Annotated[bool, setting("web")] = True,
    gateway: Annotated[bool, typer.Option("--gateway/--no-gateway", help="Without: Triton alone.")] = True,
    max_img_size: Annotated[int | None, setting("max_img_size")] = None,
    flash_attn: Annotated[bool, typer.Option("--flash-attn", help="Say what fused attention does here.")] = False,
    log_level: Annotated[
        Literal["ERROR", "WARNING", "INFO", "VERBOSE"],
        typer.Option(help="What Triton and gateway write to their logs."),
    ] = "WARNING",
    foreground: Annotated[bool, typer.Option("--foreground", help="Stay; Ctrl-C and SIGTERM stop the server.")] = False,
    triton_host: Annotated[str, typer.Option(help="Address that Triton listens on.")] = defaults.DEFAULT_HOST,
    http_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Of Triton; 0 picks a free port.")
    ] = defaults.DEFAULT_HTTP_PORT,
    grpc_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Of Triton; 0 picks a free port.")
    ] = defaults.DEFAULT_GRPC_PORT,
    metrics_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Of Triton; 0 picks a free port.")
    ] = defaults.DEFAULT_METRICS_PORT,
    config_name: Annotated[
        str | None, typer.Option(help="Variant of the models' configuration, such as cpu: configs/<name>.pbtxt.")
    ] = None,
    error_budget: Annotated[
        str,
        typer.Option(
            envvar="LYCHEE_ERROR_BUDGET",
            help="How far a score may be from the reference's for the sake of speed; exact: all in float32.",
        ),
    ] = format_budget(DEFAULT_ERROR_BUDGET),
    timeout_s: Annotated[
        float, typer.Option(min=1, help="Seconds to wait until ready.")
    ] = defaults.DEFAULT_LOAD_TIMEOUT_S,
) -> None:
    """Start Triton and the gateway with its web page, wait until both are ready, and check the scores.

    There is no `lychee share`: a public tunnel would open your models and your documents to everyone who learns its
    address. To let others in, set keys in LYCHEE_GATEWAY_API_KEYS, keep the page on 127.0.0.1, and put a proxy with TLS
    before it; docs/how-to/deploy.md has two that work.
    """
    with _report_errors():
        budget = parse_budget(error_budget)
        if gateway:  # a variable that cannot be used is better found before Triton starts
            GatewaySettings(host=host, port=port, web=web, max_img_size=max_img_size)
    server = TritonServer(
        repository,
        host=triton_host,
        http_port=http_port,
        grpc_port=grpc_port,
        metrics_port=metrics_port,
        config_name=config_name,
        error_budget=budget,
        log_path=defaults.state_dir() / "triton.log",
        log_level=log_level,
        detached=not foreground,
    )
    beside = None
    if gateway:
        choice = GatewayChoice(host, port, web and _has_page(), max_img_size, log_level)
        beside = GatewayProcess(choice, detached=not foreground)
    with _report_errors(), raise_on_sigterm():
        try:
            with state.lock_state():
                _refuse_second_server()
                _start(server, beside, timeout_s, max_img_size, flash_attn=flash_attn)
            if foreground:
                typer.echo("Ctrl-C stops it.")
                _wait(server, beside)
        except BaseException as error:
            _stop_for_good(server, beside, error)
            raise


def _has_page() -> bool:
    if importlib.util.find_spec("gradio") is not None:
        return True
    typer.echo("The page needs gradio, which is not installed: pip install 'lychee-rerank-server[web]'.", err=True)
    return False


def _refuse_second_server() -> None:
    known = state.read_state()
    if known is None:
        return
    if known.is_running():
        raise AlreadyRunningError(
            f"A server runs already: pid {known.pid}, gRPC on port {known.grpc_port}, {known.repository}. "
            "Stop it with `lychee stop`."
        )
    typer.echo(f"The server with pid {known.pid} ended without `lychee stop`; cleaning up after it.", err=True)
    _stop_gateway(known.gateway)
    processes.stop_processes(known.marker, timeout_s=defaults.DEFAULT_STOP_TIMEOUT_S)
    state.clear_state()


def _start(
    server: TritonServer,
    gateway: GatewayProcess | None,
    timeout_s: float,
    max_img_size: int | None,
    *,
    flash_attn: bool,
) -> None:
    """Start both at once, and wait for both.

    Raises:
        LycheeServerError: One of them does not start, or the scores are wrong.
    """
    start = time.monotonic()
    if gateway is not None:
        gateway.choose_port()
    server.start()
    state.write_state(state.ServerState.of(server))
    typer.echo(f"Loading {server.repository} (pid {server.pid}, log {server.log_path})")
    if ASSETS_MODEL not in server.models:
        typer.echo(f"  no golden pairs to check, and no gateway: the repository has no {ASSETS_MODEL}", err=True)
        gateway = None
    if gateway is not None:
        gateway.start(server)
        state.write_state(state.ServerState.of(server, gateway))
    server.wait_until_ready(timeout_s)
    _report_models(server, max_img_size, flash_attn=flash_attn)
    if gateway is not None:
        gateway.wait_until_ready(timeout_s)
    typer.echo(f"Ready after {time.monotonic() - start:.1f} s")
    typer.echo(f"  gRPC     {server.grpc_url}")
    typer.echo(f"  HTTP     http://{server.http_url}")
    typer.echo(f"  metrics  {server.metrics_url}")
    if gateway is not None:
        typer.echo(f"  REST     {gateway.url}/v1/rerank")
        typer.echo(f"  {'page' if gateway.has_page else 'docs'}     {gateway.url}{'' if gateway.has_page else '/docs'}")


def _report_models(server: TritonServer, max_img_size: int | None, *, flash_attn: bool) -> None:
    models = read_models(server.host, server.http_port, server.metrics_port, server.key)
    if server.choice_note:
        typer.echo(f"  what executes the encoders: {server.choice_note}")
    for model in models:
        if model.provider is not None and model.name.endswith("_encoder"):
            why = f" ({model.precision_reason})" if model.precision_reason else ""
            typer.echo(f"  {model.name}: {model.provider}, {model.precision}{why}")
    if ASSETS_MODEL not in server.models:
        return
    manifest = _check_golden_pairs(server)
    if max_img_size is not None:
        try:
            typer.echo(f"  {load_report.describe_max_img_size(manifest, max_img_size)}")
        except ConfigurationError as error:
            raise LycheeServerError(str(error)) from error
    if flash_attn:
        typer.echo(f"  {load_report.describe_flash_attn(manifest, models)}")


def _wait(server: TritonServer, gateway: GatewayProcess | None) -> None:
    """Wait until one of them ends, which it should not.

    Raises:
        LycheeServerError: It did.
    """
    while True:
        if (code := server.poll()) is not None:
            raise LycheeServerError(f"Triton ended by itself, with code {code}; see its log.")
        if gateway is not None and gateway.pid is not None and (code := gateway.poll()) is not None:
            raise LycheeServerError(f"The gateway ended by itself, with code {code}; see {gateway.log_path}.")
        time.sleep(WATCH_INTERVAL_S)


def _check_golden_pairs(server: TritonServer) -> Manifest:
    """Replay the pairs whose scores the exporter knew. Return what the server says about its model.

    Raises:
        LycheeServerError: The server's scores differ from them, or cannot be had.
    """
    try:
        with LycheeClient(server.grpc_url) as client:
            report = client.check_golden_pairs()
            manifest = client.manifest()
    except LycheeError as error:
        raise LycheeServerError(f"The golden pairs could not be scored: {error}") from error
    if not report.passed:
        raise LycheeServerError(
            f"The server's scores are off by {report.max_abs_error:.4g} on the golden pairs; expected at most "
            f"{report.tolerance:g}. The model files are not those that were exported, or this machine computes "
            "something else: run `lychee export` again, or try --error-budget exact."
        )
    typer.echo(f"  golden pairs: off by {report.max_abs_error:.2g}, at most {report.tolerance:g} allowed")
    return manifest


def _stop_for_good(server: TritonServer, gateway: GatewayProcess | None, error: BaseException) -> None:
    """Stop both, whatever else arrives meanwhile."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    if server.pid is None:
        return
    if isinstance(error, KeyboardInterrupt | SystemExit):
        typer.echo("Stopping", err=True)
    if gateway is not None and gateway.pid is not None:
        gateway.stop()
    server.stop()
    known = state.read_state()
    if known is not None and known.marker == server.marker:
        state.clear_state()


def stop() -> None:
    """Stop what `lychee load` started: the gateway, Triton, and all its processes."""
    known = state.read_state()
    if known is None:
        state.clear_state()  # a damaged one
        typer.echo("No server is running.")
        return
    was_running = known.is_running()
    gateway = _stop_gateway(known.gateway)
    report = processes.stop_processes(known.marker, timeout_s=defaults.DEFAULT_STOP_TIMEOUT_S)
    state.clear_state()
    if was_running:
        typer.echo(f"Stopped the server with pid {known.pid} and its {max(0, _count(report) - 1)} stubs.")
    else:
        typer.echo(f"No server is running: pid {known.pid} has ended. Removed its state file.")
        if _count(report):
            typer.echo(f"Stopped {_count(report)} stubs that it left.")
    if gateway is not None:
        typer.echo(f"Stopped the gateway with pid {gateway}.")
    if report.killed:
        typer.echo(f"Had to kill {', '.join(map(str, report.killed))}.", err=True)
    if report.shared_memory_regions:
        typer.echo(f"Removed {report.shared_memory_regions} shared memory regions that it left.")


def _stop_gateway(known: state.GatewayState | None) -> int | None:
    """Stop a gateway, before its Triton: it finishes the calls in flight. Return its pid, None if none was running."""
    process = None if known is None else processes.find_process(known.pid, known.create_time)
    if process is None:
        return None
    if not processes.stop_process(process, timeout_s=defaults.GATEWAY_STOP_TIMEOUT_S):
        typer.echo(f"Had to kill the gateway with pid {process.pid}.", err=True)
    return process.pid


def _count(report: processes.StopReport) -> int:
    return len(report.ended) + len(report.killed)


def status(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say how the server is. Exit status: 0 ready, 1 unhealthy, 3 not running."""
    known = state.read_state()
    if known is None or not known.is_running():
        if as_json:
            typer.echo(json.dumps({"running": False}))
        elif known is None:
            typer.echo("No server is running. Start one with `lychee load`.")
        else:
            typer.echo(f"No server is running: pid {known.pid} has ended. Clean up after it with `lychee stop`.")
        raise typer.Exit(EXIT_NOT_RUNNING)
    current = read_status(known)
    if as_json:
        typer.echo(json.dumps({"running": True, **asdict(current)}, indent=2))
    else:
        typer.echo("\n".join(describe_server(current)))
    if not current.healthy:
        raise typer.Exit(EXIT_UNHEALTHY)


@contextlib.contextmanager
def _report_errors() -> Iterator[None]:
    try:
        yield
    except (LycheeServerError, OSError) as error:  # a disk may be full, or a folder closed, at any time
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(EXIT_UNHEALTHY) from error

"""The commands `lychee load`, `lychee stop`, `lychee status`, `lychee gateway` and `lychee quickstart`."""

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer
from lychee_client import ConfigurationError, LycheeClient, LycheeError, Manifest
from lychee_client.cli.outcome import EXIT_FAILED, EXIT_NOT_RUNNING, reported_errors, tell
from lychee_client.manifest import DEFAULT_ERROR_BUDGET, describe_reading
from lychee_client.repository import ASSETS_MODEL

from lychee_server import defaults, log_files, presence, processes, state
from lychee_server import web as web_room
from lychee_server.addresses import Endpoint, check_endpoints
from lychee_server.cli import load_report
from lychee_server.cli.quickstart import quickstart as quickstart_command
from lychee_server.cli.status_text import describe_server
from lychee_server.errors import LycheeServerError
from lychee_server.execution import Device, format_budget, parse_budget
from lychee_server.gateway.cli import gateway as gateway_command
from lychee_server.gateway.cli import setting
from lychee_server.gateway.process import DEFAULT_LOG_LEVEL, GatewayChoice, GatewayProcess
from lychee_server.gateway.settings import DEFAULT_PORT, GatewaySettings
from lychee_server.status import read_models, read_status
from lychee_server.supervision import (
    MOST_RESTARTS,
    Guard,
    Notifier,
    SupervisedServer,
    clean_up,
    configure_log,
    stop_everything,
)
from lychee_server.termination import raise_on_sigterm
from lychee_server.triton import TritonServer


def register(app: typer.Typer) -> None:
    """Add the commands to the `lychee` application."""
    app.command()(load)
    app.command()(stop)
    app.command()(status)
    app.command("gateway")(gateway_command)
    app.command("quickstart")(quickstart_command)


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
        Literal["ERROR", "WARNING", "INFO", "DEBUG", "VERBOSE"] | None,
        typer.Option(
            case_sensitive=False,
            help=f"What Triton and gateway write to their logs; VERBOSE is DEBUG. {DEFAULT_LOG_LEVEL}, if not given.",
        ),
    ] = None,
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
    device: Annotated[
        Device,
        typer.Option(
            case_sensitive=False,
            envvar="LYCHEE_DEVICE",
            help="Where the encoders run; auto: as exported, else the fastest.",
        ),
    ] = "auto",
    timeout_s: Annotated[
        float, typer.Option(min=1, help="Seconds to wait until ready.")
    ] = defaults.DEFAULT_LOAD_TIMEOUT_S,
    max_restarts: Annotated[
        int, typer.Option(min=0, help="Restarts of Triton or gateway within ten minutes before it gives up.")
    ] = MOST_RESTARTS,
) -> None:
    """Start Triton and the gateway with its web page, wait until both are ready, and check the scores.

    Both are watched from then on: one that ends or hangs is started again.

    There is no `lychee share`: a public tunnel would open your models and your documents to everyone who learns its
    address. To let others in, set keys in LYCHEE_GATEWAY_API_KEYS, keep the page on 127.0.0.1, and put a proxy with TLS
    before it; docs/how-to/deploy.md has two that work.
    """
    with reported_errors():
        budget = parse_budget(error_budget)
        log_files.most_bytes()
        if gateway:  # a variable that cannot be used is better found before Triton starts
            GatewaySettings(host=host, port=port, web=web, max_img_size=max_img_size)
        ports = {"--http-port": http_port, "--grpc-port": grpc_port, "--metrics-port": metrics_port}
        endpoints = {option: Endpoint(triton_host, number, "--triton-host") for option, number in ports.items()}
        check_endpoints(endpoints | ({"--port": Endpoint(host, port)} if gateway else {}))
    level = "DEBUG" if log_level == "VERBOSE" else log_level
    server = TritonServer(
        repository,
        host=triton_host,
        http_port=http_port,
        grpc_port=grpc_port,
        metrics_port=metrics_port,
        config_name=config_name,
        error_budget=budget,
        device=device,
        log_path=defaults.state_dir() / "triton.log",
        log_level=level or DEFAULT_LOG_LEVEL,
        marker=state.own_marker(),
    )
    beside = None
    if gateway:
        beside = GatewayProcess(GatewayChoice(host, port, web and _has_page(), max_img_size, level))
    log_path = None if foreground else defaults.state_dir() / "supervisor.log"
    supervised = SupervisedServer(server, beside, log_path)
    configure_log()
    with reported_errors():
        place = state.claim()
        _clean_up_after_the_last(server.marker)
        guard = Guard(server.marker, log_path)
        guard.split()
    notifier = Notifier()
    with reported_errors(), raise_on_sigterm():
        try:
            place.answer(supervised.describe)
            _start(supervised, timeout_s, max_img_size, flash_attn=flash_attn)
            if foreground:
                typer.echo("Ctrl-C stops it.")
            guard.say_ready()
            notifier.send("READY=1")
            supervised.supervise(start_timeout_s=timeout_s, most_restarts=max_restarts, beat=notifier.beat)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt | SystemExit):
                tell("stopping")
            supervised.stop()
            raise
        finally:
            place.close()


def _has_page() -> bool:
    installed = web_room.is_installed()
    if not installed:
        tell(f"the page needs {web_room.NEEDED}, which is not installed; run: {web_room.INSTALL}")
    return installed


def _clean_up_after_the_last(marker: str) -> None:
    """End what a server has left whose supervisor is gone: whoever has the place of the supervisor may do so."""
    known = state.read_state()
    if known is not None:
        if known.gave_up is None:
            tell(f"the server with pid {known.pid} ended without `lychee stop`; cleaning up after it")
        state.clear_state()
    clean_up(marker)


def _start(supervised: SupervisedServer, timeout_s: float, max_img_size: int | None, *, flash_attn: bool) -> None:
    """Start both at once, and wait for both.

    Raises:
        LycheeServerError: One of them does not start, or the scores are wrong.
    """
    start = time.monotonic()
    server, gateway = supervised.server, supervised.gateway
    if gateway is not None:
        gateway.listen()
    server.start()
    supervised.publish()
    typer.echo(f"Loading {server.repository} (pid {server.pid}, log {server.log_path})")
    if ASSETS_MODEL not in server.models:
        tell(f"no golden pairs to check, and no gateway: the repository has no {ASSETS_MODEL}")
        gateway = supervised.gateway = None
    if gateway is not None:
        gateway.start(server)
        supervised.publish()
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
    if server.variant_note:
        typer.echo(f"  {server.variant_note}")
    if server.choice_note:
        typer.echo(f"  what executes the encoders: {server.choice_note}")
    for model in models:
        if model.provider is not None and model.name.endswith("_encoder"):
            why = f" ({model.precision_reason})" if model.precision_reason else ""
            typer.echo(f"  {model.name}: {model.provider}, {model.precision}{why}")
    if ASSETS_MODEL not in server.models:
        return
    manifest = _check_golden_pairs(server)
    for line in describe_reading(manifest):
        typer.echo(f"  {line}")
    if max_img_size is not None:
        try:
            typer.echo(f"  {load_report.describe_max_img_size(manifest, max_img_size)}")
        except ConfigurationError as error:
            raise LycheeServerError(str(error)) from error
    if flash_attn:
        typer.echo(f"  {load_report.describe_flash_attn(manifest, models)}")


def _check_golden_pairs(server: TritonServer) -> Manifest:
    """Replay the pairs whose scores the exporter knew. Return what the server says about its model.

    Raises:
        LycheeServerError: The server's scores differ from them, or cannot be had.
    """
    try:
        with LycheeClient(server.grpc_url, model=None) as client:
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
    server.calm_log()
    typer.echo(f"  golden pairs: off by {report.max_abs_error:.2g}, at most {report.tolerance:g} allowed")
    return manifest


def stop() -> None:
    """Stop what `lychee load` started: the gateway, Triton, and all its processes."""
    known = state.read_state()
    stopped = stop_everything(known)
    state.clear_state()
    if stopped.pid is not None:
        typer.echo(f"Stopped the server with pid {stopped.pid} and its {stopped.stubs} stubs.")
    elif not stopped.found_any:
        ended = "" if known is None else f": pid {known.pid} has ended. Removed its state file"
        typer.echo(f"No server is running{ended}.")
    elif stopped.stubs:
        typer.echo(f"Stopped {stopped.stubs} stubs that a server had left.")
    for pid in stopped.gateways:
        typer.echo(f"Stopped the gateway with pid {pid}.")
    if stopped.killed:
        tell(f"had to kill {', '.join(map(str, stopped.killed))}")
    if stopped.regions:
        typer.echo(f"Removed {stopped.regions} shared memory regions that it left.")


def status(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say how the server is. Exit status: 0 ready, 1 unhealthy, 3 not running."""
    known = state.read_state()
    if known is None or not known.is_running():
        _report_absence(known, as_json=as_json)
    current = read_status(known)
    if as_json:
        typer.echo(json.dumps({"running": True, **asdict(current)}, indent=2))
    else:
        typer.echo("\n".join(describe_server(current)))
    if not current.healthy:
        raise typer.Exit(EXIT_FAILED)


def _report_absence(known: state.ServerState | None, *, as_json: bool) -> NoReturn:
    """Say why there is no server to ask."""
    reason, code = "", EXIT_NOT_RUNNING
    if (found := presence.find(state.own_marker())) is not None:
        reason, code = f"`lychee load` (pid {found.pid}) is starting or stopping it", EXIT_FAILED
    elif left := processes.find_processes(state.own_marker()):
        reason = f"its supervisor is gone, but {len(left)} of its processes live. End them with `lychee stop`"
    elif known is not None and known.gave_up is not None:
        reason = known.gave_up
    elif known is not None:
        reason = f"pid {known.pid} has ended. Clean up after it with `lychee stop`"
    if as_json:
        typer.echo(json.dumps({"running": False, **({"reason": reason} if reason else {})}))
    elif reason:
        typer.echo(f"No server is running: {reason.removesuffix('.')}.")
    else:
        typer.echo("No server is running. Start one with `lychee load`.")
    raise typer.Exit(code)

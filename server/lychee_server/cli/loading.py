"""The command `lychee load`: Triton for each repository, and the gateway in front of them."""

import secrets
import time
from pathlib import Path
from typing import Annotated, Literal

import typer
from lychee_client import ConfigurationError
from lychee_client.cli.outcome import reported_errors, tell
from lychee_client.manifest import DEFAULT_ERROR_BUDGET, describe_reading
from lychee_client.repository import ASSETS_MODEL

from lychee_server import defaults, log_files, state
from lychee_server import web as web_room
from lychee_server.addresses import Endpoint, check_endpoints, find_free_ports
from lychee_server.cli import load_report
from lychee_server.cli.repositories import Choice, choose
from lychee_server.errors import LycheeServerError
from lychee_server.execution import Device, format_budget, parse_budget
from lychee_server.gateway.cli import setting
from lychee_server.gateway.process import DEFAULT_LOG_LEVEL, GatewayChoice, GatewayProcess
from lychee_server.gateway.settings import DEFAULT_PORT, GatewaySettings, variable_of
from lychee_server.golden_pairs import check_golden_pairs
from lychee_server.status import read_models
from lychee_server.supervision import (
    MOST_RESTARTS,
    Guard,
    Notifier,
    ServedRepository,
    SupervisedServer,
    clean_up,
    configure_log,
)
from lychee_server.termination import raise_on_sigterm
from lychee_server.triton import TritonServer

__all__ = ["load"]


def load(
    repository: Annotated[
        list[Path],
        typer.Option(
            envvar="LYCHEE_REPOSITORY",
            metavar="FOLDER",
            help="Folder that `lychee export` wrote. Repeat it to serve several models: each is called as its folder, "
            "or NAME=FOLDER says how.",
        ),
    ] = [Path("model_repository")],  # noqa: B006
    models: Annotated[
        Path | None,
        typer.Option(
            envvar=variable_of("models"),
            help="File of several models, as `lychee gateway` takes; here a model has a `repository`.",
        ),
    ] = None,
    served_model_name: Annotated[
        list[str] | None,
        typer.Option(help="Further name under which callers know the model; of several: MODEL=NAME. Repeat."),
    ] = None,
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
        choice = choose(repository, models, served_model_name or (), config_name)
        if gateway:  # a variable that cannot be used is better found before Triton starts
            choice.check(GatewaySettings(host=host, port=port, web=web, max_img_size=max_img_size))
        ports = {"--http-port": http_port, "--grpc-port": grpc_port, "--metrics-port": metrics_port}
        endpoints = {option: Endpoint(triton_host, number, "--triton-host") for option, number in ports.items()}
        check_endpoints(endpoints | ({"--port": Endpoint(host, port)} if gateway else {}))
        numbers: list[tuple[int, ...]] = [tuple(ports.values())]  # the options are the first one's
        while len(numbers) < len(choice.here):
            taken = {number for each in numbers for number in each} | ({port} if gateway else set())
            numbers.append(find_free_ports(triton_host, numbers[-1], taken))
    level = "DEBUG" if log_level == "VERBOSE" else log_level
    beside = None
    if gateway:
        beside = GatewayProcess(
            GatewayChoice(host, port, web and _has_page(), max_img_size, level, choice.served_names)
        )
    key, served = secrets.token_hex(16), []
    for count, (model, own_ports) in enumerate(zip(choice.here, numbers, strict=True), 1):
        assert model.repository is not None
        server = TritonServer(
            model.repository,
            host=triton_host,
            http_port=own_ports[0],
            grpc_port=own_ports[1],
            metrics_port=0,
            config_name=model.config_name,
            error_budget=budget,
            device=device,
            log_path=defaults.state_dir() / model.log_name,
            log_level=level or DEFAULT_LOG_LEVEL,
            key=key,
            marker=f"{state.own_marker()}{count}_",
            replaceable=True,
        )
        served.append(ServedRepository(model.name, server, own_ports[2]))
    log_path = None if foreground else defaults.state_dir() / "supervisor.log"
    supervised = SupervisedServer(served, beside, log_path)
    configure_log()
    with reported_errors():
        place = state.claim()
        _clean_up_after_the_last(state.own_marker())
        guard = Guard(state.own_marker(), log_path)
        guard.split()
    notifier = Notifier()
    with reported_errors(), raise_on_sigterm():
        try:
            place.answer(supervised.describe, supervised.take)
            _start(supervised, choice, timeout_s, max_img_size, flash_attn=flash_attn)
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
            tell(f"the server with pid {known.first.pid} ended without `lychee stop`; cleaning up after it")
        state.clear_state()
    clean_up(marker)


def _start(
    supervised: SupervisedServer, choice: Choice, timeout_s: float, max_img_size: int | None, *, flash_attn: bool
) -> None:
    """Start all at once, and wait for all.

    Raises:
        LycheeServerError: One of them does not start, or the scores are wrong.
    """
    start = time.monotonic()
    gateway = supervised.gateway
    if gateway is not None:
        gateway.listen()
    for served in supervised.served:
        served.open_metrics()
    for served in supervised.served:  # what executes a model is measured, undisturbed by others that load
        served.server.export.prepare()
    for served in supervised.served:
        server = served.server
        server.launch()
        supervised.publish()
        typer.echo(f"Loading {server.repository} (pid {server.pid}, log {server.log_path})")
    first = supervised.served[0].server
    if ASSETS_MODEL not in first.models:
        tell(f"no golden pairs to check, and no gateway: the repository has no {ASSETS_MODEL}")
        gateway = supervised.gateway = None
    if gateway is not None:
        urls = {served.name: served.server.grpc_url for served in supervised.served}
        gateway.start(first, choice.write(urls) if choice.is_named else None)
        supervised.publish()
    for served in supervised.served:
        served.server.wait_until_ready(timeout_s)
        if served.name:
            typer.echo(f"{served.name}:")
        _report_models(served.server, max_img_size, flash_attn=flash_attn)
    if gateway is not None:
        gateway.wait_until_ready(timeout_s)
    typer.echo(f"Ready after {time.monotonic() - start:.1f} s")
    for served in supervised.served:
        of = f"  of {served.name}" if served.name else ""
        typer.echo(f"  gRPC     {served.server.grpc_url}{of}")
        typer.echo(f"  HTTP     http://{served.server.http_url}{of}")
        typer.echo(f"  metrics  {served.metrics_url}{of}")
    if gateway is not None:
        typer.echo(f"  REST     {gateway.url}/v1/rerank")
        typer.echo(f"  {'page' if gateway.has_page else 'docs'}     {gateway.url}{'' if gateway.has_page else '/docs'}")


def _report_models(server: TritonServer, max_img_size: int | None, *, flash_attn: bool) -> None:
    models = read_models(server.host, server.http_port, server.metrics_port, server.key)
    if server.export.variant_note:
        typer.echo(f"  {server.export.variant_note}")
    if server.export.choice_note:
        typer.echo(f"  what executes the encoders: {server.export.choice_note}")
    for model in models:
        if model.provider is not None and model.name.endswith("_encoder"):
            why = f" ({model.precision_reason})" if model.precision_reason else ""
            typer.echo(f"  {model.name}: {model.provider}, {model.precision}{why}")
    if ASSETS_MODEL not in server.models:
        return
    manifest, found = check_golden_pairs(server.grpc_url)
    server.calm_log()
    typer.echo(f"  {found}")
    for line in describe_reading(manifest):
        typer.echo(f"  {line}")
    if max_img_size is not None:
        try:
            typer.echo(f"  {load_report.describe_max_img_size(manifest, max_img_size)}")
        except ConfigurationError as error:
            raise LycheeServerError(str(error)) from error
    if flash_attn:
        typer.echo(f"  {load_report.describe_flash_attn(manifest, models)}")

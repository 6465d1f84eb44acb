"""The commands `lychee load`, `stop`, `status`, `gateway`, `models` and `quickstart`."""

import json
from typing import Annotated, NoReturn

import typer
from lychee_client.cli.outcome import EXIT_FAILED, EXIT_NOT_RUNNING, tell

from lychee_server import presence, processes, state
from lychee_server.cli.loading import load
from lychee_server.cli.models import models as models_command
from lychee_server.cli.quickstart import quickstart as quickstart_command
from lychee_server.cli.status_text import describe_server
from lychee_server.cli.upgrade import rollback, upgrade
from lychee_server.gateway.cli import gateway as gateway_command
from lychee_server.status import read_status
from lychee_server.supervision import stop_everything


def register(app: typer.Typer) -> None:
    """Add the commands to the `lychee` application."""
    app.command()(load)
    app.command()(stop)
    app.command()(status)
    app.command()(upgrade)
    app.command()(rollback)
    app.command("gateway")(gateway_command)
    app.command("models")(models_command)
    app.command("quickstart")(quickstart_command)


def stop() -> None:
    """Stop what `lychee load` started: the gateway, Triton, and all its processes."""
    known = state.read_state()
    stopped = stop_everything(known)
    state.clear_state()
    if stopped.pids:
        servers, whose = ("server", "its") if len(stopped.pids) == 1 else ("servers", "their")
        pids = " and ".join(map(str, stopped.pids))
        typer.echo(f"Stopped the {servers} with pid {pids} and {whose} {stopped.stubs} stubs.")
    elif not stopped.found_any:
        ended = "" if known is None else f": pid {known.first.pid} has ended. Removed its state file"
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
        typer.echo(json.dumps({"running": True, **current.to_json()}, indent=2))
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
        reason = f"pid {known.first.pid} has ended. Clean up after it with `lychee stop`"
    if as_json:
        typer.echo(json.dumps({"running": False, **({"reason": reason} if reason else {})}))
    elif reason:
        typer.echo(f"No server is running: {reason.removesuffix('.')}.")
    else:
        typer.echo("No server is running. Start one with `lychee load`.")
    raise typer.Exit(code)

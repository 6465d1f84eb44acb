"""The command `lychee quickstart`: from an empty machine to a page, with three things to try."""

from __future__ import annotations

import importlib.metadata
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
import webbrowser
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Final

import platformdirs
import typer
from lychee_client import LycheeClient
from lychee_client.checks import CheckContext, CheckResult, run_checks
from lychee_client.cli.group import COMES_WITH
from lychee_client.cli.outcome import EXIT_INTERRUPTED, reported_errors, tell
from lychee_client.repository import read_manifest

from lychee_server import defaults, presence, state
from lychee_server.cli.things_to_try import describe_things_to_try
from lychee_server.doctor.machine import CHECKS
from lychee_server.errors import InstallationError, LycheeServerError, RepositoryError
from lychee_server.gateway.process import read_problem
from lychee_server.gateway.settings import DEFAULT_PORT, GatewaySettings
from lychee_server.installation import TritonInstallation
from lychee_server.local_http import reachable_host
from lychee_server.processes import check_port
from lychee_server.repository import check_repository
from lychee_server.supervision import stop_everything
from lychee_server.termination import raise_on_sigterm

__all__ = ["quickstart"]

MODEL: Final = "lychee-mini"
EXPORT: Final = "lychee-rerank-export"
MACHINE_CHECKS: Final = ("permissions", "disk", "memory")  # the others are about a server or a repository that is there
PARTIAL_SUFFIX: Final = ".partial"
# The program `lychee` of this environment, which need not be on PATH.
PROGRAM: Final = (
    "from importlib.metadata import entry_points\n"
    "next(iter(entry_points(group='console_scripts', name='lychee'))).load()()"
)
SERVING: Final = {"nvidia-pytriton": "pytriton", "onnxruntime-openvino": "onnxruntime"}  # distribution and package
TRITON_PORTS: Final = {
    "--http-port": defaults.DEFAULT_HTTP_PORT,
    "--grpc-port": defaults.DEFAULT_GRPC_PORT,
    "--metrics-port": defaults.DEFAULT_METRICS_PORT,
}
BROWSER_TIMEOUT_S: Final = 10.0


def quickstart(
    repository: Annotated[
        Path | None,
        typer.Option(help="Folder for the exported model; the user's data folder by default.", show_default=False),
    ] = None,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Of the page and REST; 0 picks a free port.")
    ] = DEFAULT_PORT,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Open no browser.")] = False,
) -> None:
    """Check this machine, export the bundled model, load it, open the page, and print three things to try.

    What is there already is used again: an exported model of this version, and a server that runs. `lychee stop` ends
    the server.
    """
    steps = _Steps()
    try:
        with reported_errors(), raise_on_sigterm():
            gateway = _find_running()
            if gateway is None:
                gateway = _start(steps, repository, port)
            else:
                steps.say("a server runs already, and is left as it is")
    except KeyboardInterrupt as error:
        tell("interrupted; nothing is left running, and no half of an export")
        raise typer.Exit(EXIT_INTERRUPTED) from error
    url = f"http://{reachable_host(gateway.host)}:{gateway.port}"
    if not no_browser and (reason := _open(url)):
        steps.say(f"no browser was opened: {reason}")
    steps.say("done")
    typer.echo("\n".join(describe_things_to_try(url, needs_key=_needs_key())))


class _Steps:
    """Prints what is done, with the seconds since the start."""

    def __init__(self) -> None:
        self._began_s = time.monotonic()

    def say(self, line: str) -> None:
        typer.echo(f"{time.monotonic() - self._began_s:6.1f} s  {line}")
        sys.stdout.flush()  # before what the commands below print


def _find_running() -> state.GatewayState | None:
    """Return the gateway of the server that runs; None if there is no server.

    Raises:
        LycheeServerError: The server has no gateway, or is not ready.
    """
    known = state.read_state()
    if known is None or not known.is_running():
        if (found := presence.find(state.own_marker())) is not None:
            raise LycheeServerError(f"another `lychee load` (pid {found.pid}) starts or stops a server; wait for it")
        return None
    if known.gateway is None:
        raise LycheeServerError(
            f"a server without a gateway runs already (pid {known.first.pid}, {known.first.repository}); "
            "run `lychee stop` first"
        )
    problem = read_problem(known.gateway.host, known.gateway.port)
    if problem is not None:
        raise LycheeServerError(
            f"a server runs already (pid {known.first.pid}) and is not ready: {problem}. See `lychee status`, or run "
            "`lychee stop` and this again"
        )
    return known.gateway


def _start(steps: _Steps, repository: Path | None, port: int) -> state.GatewayState:
    """Check, export and load; return the gateway."""
    settings = GatewaySettings(port=port)
    folder = repository if repository is not None else platformdirs.user_data_path(defaults.APPLICATION) / MODEL
    folder = folder.absolute()
    steps.say("1/3  checking this machine")
    wanted = _find_unusable(folder)
    _check_installation(needs_export=wanted is not None)
    if port:
        check_port(settings.host, port, option="--port (0: any that is free)")
    _check_machine(folder)
    if wanted is None:
        steps.say(f"2/3  {folder} holds {MODEL} already")
    else:
        steps.say(f"2/3  exporting {MODEL} to {folder} ({wanted})")
        _export(folder)
    steps.say("3/3  loading it")
    try:
        _run(["load", "--repository", str(folder), "--port", str(port), *_triton_ports(steps)], "loading")
    except (KeyboardInterrupt, SystemExit):
        stop_everything(state.read_state())  # it may have been ready just before
        raise
    gateway = _find_running()
    if gateway is None:
        raise LycheeServerError("the server that was loaded has ended already; see `lychee status`")
    return gateway


def _find_unusable(folder: Path) -> str | None:
    """Say why the model has to be exported; None if it is there, in the version of the exporter that is installed.

    Raises:
        LycheeServerError: The folder holds something else.
    """
    if not folder.exists() or not any(folder.iterdir()):
        return "once; it takes half a minute or so"
    manifest = read_manifest(folder)
    if manifest is None or manifest.model_id != MODEL:
        holds = "files that are no export" if manifest is None else manifest.model_id
        raise LycheeServerError(
            f"{folder} holds {holds}; expected {MODEL} or an empty folder. Name another folder with --repository, or "
            f"serve what is there: lychee load --repository {shlex.quote(str(folder))}"
        )
    try:
        check_repository(folder)
    except RepositoryError:
        return "what is there is not complete"
    made_by, installed = manifest.created_by.get(EXPORT), _version(EXPORT)
    if installed is None or made_by == installed:
        return None
    return f"what is there was made by version {made_by}, and {installed} is installed"


def _check_installation(*, needs_export: bool) -> None:
    """Name what is not installed.

    Raises:
        LycheeServerError: Something is missing.
    """
    missing = [] if not needs_export or _version(EXPORT) is not None else [EXPORT]
    missing += [package for package, module in SERVING.items() if find_spec(module) is None]
    if missing:
        are = "is" if len(missing) == 1 else "are"
        requirement = COMES_WITH["quickstart"]
        raise InstallationError(f'{" and ".join(missing)} {are} not installed; run: pip install "{requirement}"')
    TritonInstallation.find()


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _check_machine(folder: Path) -> None:
    """Make those checks of `lychee doctor` that can be made before there is a model; print what is not as it should be.

    Raises:
        LycheeServerError: One of them failed.
    """
    checks = {name: CHECKS[name] for name in MACHINE_CHECKS}
    with LycheeClient(model=None) as client:
        context = CheckContext(client, "localhost:8001", folder)
        found = [each for each in run_checks(checks, context) if each.verdict in ("failed", "warning")]
    for each in found:
        typer.echo(f"          {each.name}: {each.verdict}: {_describe(each)}")
    failed = [each for each in found if each.verdict == "failed"]
    if failed:
        raise LycheeServerError(f"{failed[0].name}: {_describe(failed[0])}")


def _describe(check: CheckResult) -> str:
    return f"{check.seen} -> {check.advice}" if check.advice else check.seen


def _export(folder: Path) -> None:
    """Export beside the folder, and put it in place when it is whole."""
    partial = folder.with_name(folder.name + PARTIAL_SUFFIX)
    shutil.rmtree(partial, ignore_errors=True)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _run(["export", MODEL, "--repository", str(partial)], "exporting", hidden=str(partial))
        if folder.exists() and any(folder.iterdir()):
            shutil.rmtree(folder)
        os.replace(partial, folder)
    except OSError as error:
        raise LycheeServerError(
            f"{folder} cannot be written ({error.strerror}); name another with --repository"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _triton_ports(steps: _Steps) -> list[str]:
    """Return options for Triton's ports: a free one for each that is taken, since nobody has to know them."""
    options = []
    for name, port in TRITON_PORTS.items():
        try:
            check_port(defaults.DEFAULT_HOST, port, option=name)
        except LycheeServerError as error:
            steps.say(f"     {str(error).partition('. ')[0]}; Triton takes another")
            options += [name, "0"]
    return options


def _run(arguments: Sequence[str], doing: str, *, hidden: str | None = None) -> None:
    """Run a command of `lychee`, which another distribution may bring; it hears of Ctrl-C from here alone, once.

    Args:
        arguments: The command line.
        doing: What it does, for the message.
        hidden: Lines with this word are not printed. None: the command prints by itself, and may leave processes.

    Raises:
        LycheeServerError: It failed; it has said why.
    """
    command = [sys.executable, "-c", PROGRAM, *arguments]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    output = None if hidden is None else subprocess.PIPE
    with subprocess.Popen(command, env=environment, start_new_session=True, stdout=output, text=True) as process:
        try:
            for line in process.stdout or ():
                if hidden is not None and hidden not in line:
                    typer.echo(f"{'':8}{line}", nl=False)
            code = process.wait()
        except BaseException:
            process.send_signal(signal.SIGINT)
            process.wait()
            raise
    if code:
        raise LycheeServerError(f"{doing} the model failed, as told above")


def _open(url: str) -> str:
    """Open the page in a browser, and say why not if it cannot be; the browser may take its time."""
    if os.environ.get("SSH_CONNECTION") or os.environ.get("SSH_TTY"):
        return "this is a session over SSH"
    if not any(os.environ.get(name) for name in ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY")) and sys.platform == "linux":
        return "there is no display"
    opened: list[bool] = []
    thread = threading.Thread(target=lambda: opened.append(webbrowser.open(url)), daemon=True)
    thread.start()
    thread.join(BROWSER_TIMEOUT_S)
    return "none was found" if opened == [False] else ""


def _needs_key() -> bool:
    settings = GatewaySettings()
    return bool(settings.api_keys) or settings.api_keys_file is not None

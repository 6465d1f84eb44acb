"""The commands `lychee upgrade` and `lychee rollback`: another export takes the place of the one that is served."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from lychee_client.cli.outcome import EXIT_NOT_RUNNING, reported_errors, tell
from lychee_client.exports import Export, list_exports, restore_exports, use_export

from lychee_server import state
from lychee_server.errors import LycheeServerError, RepositoryError
from lychee_server.supervision import UpgradeRequest, ask_for_upgrade

__all__ = ["rollback", "upgrade"]

DEFAULT_REPOSITORY = Path("model_repository")
Repository = Annotated[
    Path | None,
    typer.Option(help="Folder that `lychee export` wrote; the one that is served by default.", show_default=False),
]
Model = Annotated[
    str | None,
    typer.Option("--model", help="Which of several models, by its name in `lychee status`.", show_default=False),
]
Variant = Annotated[
    str | None,
    typer.Option(
        help='Variant of the models\' configuration; as it was by default, and "" for config.pbtxt.', show_default=False
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Also where memory seems too short for two servers at once.")]


def upgrade(
    repository: Repository = None,
    to: Annotated[
        int | None,
        typer.Option("--to", help="Version of a kept export, which becomes the current one.", show_default=False),
    ] = None,
    config_name: Variant = None,
    model: Model = None,
    force: Force = False,
) -> None:
    """Serve the repository's current export in the place of the one that is served, without a gap.

    A second Triton loads it beside the first, and its golden pairs are checked. Then it gets the callers, and the first
    one ends when it has answered what it had begun. If anything fails, the first one goes on. Ctrl-C ends this command
    alone. Exit status: 1 failed, 3 no server is running.
    """
    with reported_errors():
        running = _find_running(model, repository)
        if running is None:
            tell("no server is running; start one with `lychee load`")
            raise typer.Exit(EXIT_NOT_RUNNING)
        folder = Path(running.repository) if repository is None else repository.absolute()
        before = None if to is None else _make_current(folder, to)
        request = UpgradeRequest(running.name, str(folder), config_name, force)
        _carry_out(request, folder, before)


def rollback(
    repository: Repository = None,
    to: Annotated[
        int | None,
        typer.Option(
            "--to", help="Version of a kept export; by default the one before the current one.", show_default=False
        ),
    ] = None,
    config_name: Variant = None,
    model: Model = None,
    force: Force = False,
) -> None:
    """Go back to the export that was current before, in the repository and on the server that runs, without a gap.

    See `lychee models` for what is kept, and `lychee upgrade` for how the server changes.
    """
    with reported_errors():
        running = _find_running(model, repository)
        if repository is None:
            folder = (DEFAULT_REPOSITORY if running is None else Path(running.repository)).absolute()
        else:
            folder = repository.absolute()
        before = _make_current(folder, _choose_earlier(folder) if to is None else to)
        if running is None:
            typer.echo("No server is running; `lychee load` will serve it.")
        elif Path(running.repository) != folder:
            typer.echo(f"The server that runs serves {running.repository}, and was left alone.")
        else:
            _carry_out(UpgradeRequest(running.name, str(folder), config_name, force), folder, before)


def _find_running(model: str | None, repository: Path | None) -> state.TritonState | None:
    """Return the Triton that is meant: by its model, of several by its folder, or the only one; None if no server runs.

    Raises:
        LycheeServerError: No model of the server has that name, or one of several has to be named.
    """
    known = state.read_state()
    if known is None or known.supervisor is None or not known.supervisor.is_running():
        return None
    names = ", ".join(triton.name for triton in known.tritons)
    if model is None and len(known.tritons) > 1:
        served = [each for each in known.tritons if repository and Path(each.repository) == repository.absolute()]
        if not served:
            raise LycheeServerError(f"several models are served; name one with --model: {names}")
        return served[0]
    for triton in known.tritons:
        if model in (None, triton.name):
            return triton
    raise LycheeServerError(f"no model is called {model}; expected {names or 'none: there is only one'}")


def _list(folder: Path) -> tuple[Export, ...]:
    restore_exports(folder)
    exports = list_exports(folder)
    if not any(export.is_current for export in exports):
        raise RepositoryError(f"{folder} holds no export; run `lychee export`, or name the folder with --repository")
    return exports


def _choose_earlier(folder: Path) -> int:
    """Return the version of the newest export that was made before the current one.

    Raises:
        RepositoryError: There is none.
    """
    exports = _list(folder)
    place = next(place for place, export in enumerate(exports) if export.is_current)
    if place + 1 == len(exports):
        kept = ", ".join(str(export.version) for export in exports)
        raise RepositoryError(
            f"{folder} keeps no export that is older than the current one; it has {kept}. Name one with --to"
        )
    return exports[place + 1].version


def _make_current(folder: Path, version: int) -> int | None:
    """Make an export the current one. Return which one was; None if it was this one.

    Raises:
        RepositoryError: It is not kept.
    """
    exports = _list(folder)
    current = next(export for export in exports if export.is_current)
    if version not in {export.version for export in exports}:
        kept = ", ".join(str(export.version) for export in exports)
        raise RepositoryError(f"{folder} has no export {version}; expected one of {kept}")
    if current.version == version:
        return None
    use_export(folder, version)
    typer.echo(f"{folder}: export {version} is the current one, in the place of {current.version}")
    return current.version


def _carry_out(request: UpgradeRequest, folder: Path, before: int | None) -> None:
    """Have the supervisor do it; where it fails, make current what was.

    Raises:
        LycheeServerError: It failed.
    """
    try:
        for line in ask_for_upgrade(state.own_marker(), request):
            typer.echo(f"  {line}")
    except LycheeServerError as error:
        back = ""
        if before is not None:
            use_export(folder, before)
            back = f" Export {before} is the current one of {folder} again."
        raise LycheeServerError(f"{error}{'' if str(error).endswith('.') else '.'}{back}") from error
    typer.echo("Done: `lychee status` says what is served.")

"""`lychee models`: the exports that a repository holds."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from lychee_client.cli.outcome import reported_errors
from lychee_client.exports import Export, list_exports, restore_exports

from lychee_server import state
from lychee_server.defaults import MIB
from lychee_server.errors import RepositoryError


def models(
    repository: Annotated[
        Path, typer.Option(envvar="LYCHEE_REPOSITORY", help="Folder that `lychee export` wrote.")
    ] = Path("model_repository"),
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """List the exports that a repository holds, the newest first.

    The current one is what `lychee load` serves from now on, and "served" is what a running server has.
    """
    with reported_errors():
        restore_exports(repository)
        exports = list_exports(repository)
        if not exports:
            raise RepositoryError(
                f"{repository.absolute()} holds no export; run `lychee export`, or name the folder with --repository"
            )
        served = _find_served(repository)
    described = [_describe(export, served=export.version in served) for export in exports]
    if as_json:
        typer.echo(json.dumps({"repository": str(repository.absolute()), "exports": described}))
    else:
        _print(exports, described)


def _find_served(repository: Path) -> frozenset[int]:
    """Return the versions of the exports that the running server of the state folder took from a repository."""
    known = state.read_state()
    tritons = () if known is None or not known.is_running() else known.tritons
    return frozenset(triton.version for triton in tritons if Path(triton.repository).resolve() == repository.resolve())


def _describe(export: Export, *, served: bool) -> dict[str, Any]:
    manifest = export.manifest
    return {
        "version": export.version,
        "model_id": manifest.model_id,
        "revision": manifest.revision,
        "family": manifest.family,
        "precision": manifest.precision,
        "exported_at": None if export.exported_at is None else export.exported_at.isoformat(),
        "size_bytes": _measure_bytes(export),
        "current": export.is_current,
        "served": served,
        "path": str(export.path.absolute()),
    }


def _measure_bytes(export: Export) -> int:
    """Return what the files of its models take on disk."""
    folders = export.path.glob(f"*/{export.version or '*'}")
    return sum(path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file())


def _print(exports: Sequence[Export], described: Sequence[Mapping[str, Any]]) -> None:
    rows = [("version", "model", "revision", "family", "precision", "exported", "MiB", "")]
    for export, told in zip(exports, described, strict=True):
        at = "?" if export.exported_at is None else f"{export.exported_at.astimezone():%Y-%m-%d %H:%M}"
        names = (str(export.version), *(told[key] for key in ("model_id", "revision", "family", "precision")))
        marks = ", ".join(mark for mark in ("current", "served") if told[mark])
        rows.append((*names, at, f"{told['size_bytes'] / MIB:.0f}", marks))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        typer.echo("  ".join(map(str.ljust, row, widths)).rstrip())

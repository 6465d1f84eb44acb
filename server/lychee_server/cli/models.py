"""`lychee models`: the exports that a repository holds."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from lychee_client.cli.outcome import reported_errors
from lychee_client.exports import Export, list_exports

from lychee_server.defaults import MIB
from lychee_server.errors import RepositoryError


def models(
    repository: Annotated[
        Path, typer.Option(envvar="LYCHEE_REPOSITORY", help="Folder that `lychee export` wrote.")
    ] = Path("model_repository"),
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """List the exports that a repository holds: the one that is served from now on, and earlier ones that were kept."""
    with reported_errors():
        exports = list_exports(repository)
        if not exports:
            raise RepositoryError(
                f"{repository.absolute()} holds no export; run `lychee export`, or name the folder with --repository"
            )
    if as_json:
        typer.echo(json.dumps({"repository": str(repository.absolute()), "exports": [*map(_describe, exports)]}))
    else:
        _print(exports)


def _describe(export: Export) -> dict[str, Any]:
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
        "path": str(export.path.absolute()),
    }


def _measure_bytes(export: Export) -> int:
    """Return what the files of its models take on disk."""
    folders = export.path.glob(f"*/{export.version or '*'}")
    return sum(path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file())


def _print(exports: Sequence[Export]) -> None:
    rows = [("version", "model", "revision", "precision", "exported", "MiB", "")]
    for export in exports:
        told = _describe(export)
        at = "?" if export.exported_at is None else f"{export.exported_at.astimezone():%Y-%m-%d %H:%M}"
        names = (str(export.version), told["model_id"], told["revision"], told["precision"])
        rows.append((*names, at, f"{told['size_bytes'] / MIB:.0f}", "current" if export.is_current else ""))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        typer.echo("  ".join(map(str.ljust, row, widths)).rstrip())

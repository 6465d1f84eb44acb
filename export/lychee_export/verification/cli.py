"""The command ``lychee verify``."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from lychee_client import GoldenReport, LycheeClient, Manifest
from lychee_client.cli.outcome import EXIT_FAILED, reported_errors
from lychee_client.repository import ASSETS_MODEL

if TYPE_CHECKING:
    from lychee_export.verification.comparison import Comparison

__all__ = ["register"]

_EPILOG = "Example: lychee verify --repository model_repository --reference lychee-mini"


def register(app: typer.Typer) -> None:
    """Add the command to the ``lychee`` application."""
    app.command("verify", epilog=_EPILOG)(_verify)


def _verify(
    repository: Annotated[
        Path | None,
        typer.Option(
            help="Check the files of this model repository, in process with ONNX Runtime; without --url the default, "
            "from LYCHEE_REPOSITORY or model_repository.",
        ),
    ] = None,
    url: Annotated[str | None, typer.Option(help="Check a live server instead, such as localhost:8001.")] = None,
    reference: Annotated[
        str | None,
        typer.Option(
            help="The checkpoint that was exported (lychee-mini, a folder or a model of the hub): score the pairs "
            "afresh with its reference implementation, too.",
            metavar="CHECKPOINT",
        ),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(help="Base model of --reference, if that is a LoRA adapter.", metavar="CHECKPOINT"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Replay the golden pairs and compare the scores with the exporter's. Exit status 1 if one is off."""
    if repository is not None and url is not None:
        raise typer.BadParameter("give --repository or --url, not both: a replay is in process or on a server")
    # onnxruntime and torch take seconds to import; the other commands of lychee do not wait for them
    from lychee_export.verification.artifacts import check_artifacts
    from lychee_export.verification.comparison import compare
    from lychee_export.verification.reference import reference_scores

    problems: list[str] = []
    with reported_errors():
        if url is not None:
            checked = url
            manifest, report = _replay_on_server(url)
        else:
            folder = _find_repository(repository)
            checked = str(folder)
            manifest, report = _replay_in_process(folder)
            problems = check_artifacts(folder, manifest.artifacts)
        scores = None if reference is None else reference_scores(reference, manifest, base)
    comparison = compare(manifest, report, scores)
    if as_json:
        typer.echo(json.dumps(_to_json(checked, manifest, comparison, problems), ensure_ascii=False, indent=2))
    else:
        _print(checked, manifest, comparison, problems)
    if problems or not comparison.passed:
        raise typer.Exit(EXIT_FAILED)


def _find_repository(repository: Path | None) -> Path:
    folder = repository or Path(os.environ.get("LYCHEE_REPOSITORY") or "model_repository")
    if not (folder / ASSETS_MODEL).is_dir():
        raise typer.BadParameter(
            f"{folder} holds no exported model; name a folder that `lychee export` wrote with --repository, or a "
            "server with --url"
        )
    return folder


def _replay_on_server(url: str) -> tuple[Manifest, GoldenReport]:
    with LycheeClient(url) as client:
        return client.manifest(), client.check_golden_pairs()


def _replay_in_process(repository: Path) -> tuple[Manifest, GoldenReport]:
    from lychee_export.verification.in_process import in_process_client

    with in_process_client(repository) as client:
        return client.manifest(), client.check_golden_pairs(timeout_s=None)


def _print(checked: str, manifest: Manifest, comparison: Comparison, problems: list[str]) -> None:
    typer.echo(
        f"{checked}: {manifest.model_id}, revision {manifest.revision}, precision {manifest.identity.precision_text}"
    )
    has_reference = any(pair.reference is not None for pair in comparison.pairs)
    columns = ["manifest", "measured", *(["reference"] if has_reference else []), "difference"]
    typer.echo("      " + "".join(f"{name:>12}" for name in columns) + "  query -> document")
    for pair in comparison.pairs:
        scores = [pair.manifest, pair.measured, *([] if pair.reference is None else [pair.reference])]
        numbers = "".join(f"{score:12.6f}" for score in scores) + f"{pair.difference:12.1e}"
        verdict = "ok" if comparison.is_ok(pair) else "OFF"
        typer.echo(f"{verdict:6}{numbers}  {pair.query} -> {pair.document}")
    for problem in problems:
        typer.echo(f"FILE  {problem}")
    typer.echo(_conclude(comparison, problems))


def _conclude(comparison: Comparison, problems: list[str]) -> str:
    if not comparison.pairs:
        return "the manifest has no golden pairs: nothing was verified"
    off = sum(not comparison.is_ok(pair) for pair in comparison.pairs)
    differing = f", {len(problems)} files differ" if problems else ""
    return (
        f"{len(comparison.pairs) - off} of {len(comparison.pairs)} pairs agree; largest difference "
        f"{comparison.max_difference:.1e}, accepted {comparison.tolerance:g}{differing}"
    )


def _to_json(checked: str, manifest: Manifest, comparison: Comparison, problems: list[str]) -> dict[str, Any]:
    return {
        "checked": checked,
        "model_id": manifest.model_id,
        "revision": manifest.revision,
        "precision": manifest.precision,
        "execution": dict(manifest.identity.execution),
        "tolerance": comparison.tolerance,
        "max_difference": comparison.max_difference,
        "passed": comparison.passed and not problems,
        "file_problems": problems,
        "pairs": [
            {
                "query": pair.query,
                "document": pair.document,
                "manifest": pair.manifest,
                "measured": pair.measured,
                "reference": pair.reference,
                "difference": pair.difference,
                "ok": comparison.is_ok(pair),
            }
            for pair in comparison.pairs
        ],
    }

"""The command ``lychee export``."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from lychee_client.cli.outcome import EXIT_INTERRUPTED, reported_errors, tell
from lychee_client.manifest import describe_reading

from lychee_export.checkpoint.reading import Reading
from lychee_export.contract.limits import DEFAULT_GPU_MEMORY_GB, PROFILES, Limits
from lychee_export.onnx.quantization import PRECISIONS, Precision

if TYPE_CHECKING:
    from lychee_export.exporter import ExportReport

__all__ = ["register"]

Choice = TypeVar("Choice", bound=str)

_DEFAULT_REPOSITORY = Path("model_repository")


def register(app: typer.Typer) -> None:
    """Add the command to the ``lychee`` application."""
    app.command("export")(_export)


def _export(
    checkpoint: Annotated[
        str,
        typer.Argument(help="A bundled checkpoint (lychee-mini), a checkpoint folder, or owner/name on the hub."),
    ],
    repository: Annotated[
        Path, typer.Option(help="Model repository to write into.", envvar="LYCHEE_REPOSITORY")
    ] = _DEFAULT_REPOSITORY,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit on the hub.")] = None,
    base: Annotated[
        str | None,
        typer.Option(
            help="Base model of a LoRA adapter, a folder or owner/name; without it the one that the adapter names.",
            metavar="CHECKPOINT",
        ),
    ] = None,
    template: Annotated[
        str | None,
        typer.Option(
            help="Prompt of a Qwen-VL reranker whose name does not tell: jina_reranker_m0, lychee_rerank_mm, "
            "monoqwen2_vl or qwen3_vl_reranker.",
            metavar="NAME",
        ),
    ] = None,
    precision: Annotated[
        str,
        typer.Option(help=f"Bits per weight: {', '.join(PRECISIONS)}; s8: 8-bit activations too.", metavar="PRECISION"),
    ] = "fp32",
    target: Annotated[str, typer.Option(help="Hardware that serves: cpu, cuda or tensorrt.", metavar="TARGET")] = "cpu",
    profile: Annotated[
        str, typer.Option(help=f"Sizes that the server admits: {', '.join(PROFILES)}.", metavar="PROFILE")
    ] = "default",
    max_img_size: Annotated[
        int | None, typer.Option(help="Most pixels of one image, as the side of a square; overrides the profile.")
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(help="Longest sequence in tokens, images included; overrides the profile.")
    ] = None,
    instruction: Annotated[
        str | None, typer.Option(help="Default instruction, for models that read one, instead of the model's own.")
    ] = None,
    gpu_memory: Annotated[
        float, typer.Option(help="Memory of the GPU in GB, which batches are limited to; for cuda and tensorrt.", min=1)
    ] = DEFAULT_GPU_MEMORY_GB,
    max_images: Annotated[
        int | None, typer.Option(help="Most images of one query and one document together; overrides the profile.")
    ] = None,
    flash_attn: Annotated[
        bool, typer.Option("--flash-attn", help="Fuse attention; the server's ONNX Runtime must be this one.")
    ] = False,
    calibration_data: Annotated[
        Path | None,
        typer.Option(
            help="Folder with images and .txt files (one text a line) like those that will be ranked, for s8.",
            metavar="FOLDER",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an unfinished export, even of another version of lychee.")
    ] = False,
    keep: Annotated[
        int, typer.Option(min=1, help="Exports that the repository holds from now on, this one counted.")
    ] = 3,
    replace_model: Annotated[
        bool, typer.Option("--replace", help="Put it in the place of another model without asking.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print sizes, files and memory; load no weights, write nothing.")
    ] = False,
) -> None:
    """Turn a checkpoint into a validated Triton model repository."""
    chosen: Precision = _choose("precision", precision, PRECISIONS)
    limits = _limits(profile, max_img_size=max_img_size, max_tokens=max_tokens, max_images=max_images)
    reading = Reading(revision, base, template, instruction)
    # torch's idle threads spin otherwise, and take the cores from those that work: on a busy machine of 2 cores the
    # reference took 20 s instead of 2. Read when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # torch takes seconds to import; the other commands of lychee do not wait for it
    from lychee_export.dry_run import plan_export
    from lychee_export.exporter import export_checkpoint
    from lychee_export.repository.deployment import TARGETS
    from lychee_export.repository.workspace import folder_bytes, unfinished_exports

    started = time.monotonic()

    def progress(line: str) -> None:
        typer.echo(f"{time.monotonic() - started:6.1f} s  {line}")

    def run() -> ExportReport | None:
        if dry_run:
            memory_gb = None if target == "cpu" else gpu_memory
            planned = plan_export(
                checkpoint,
                chosen,
                limits=limits,
                reading=reading,
                gpu_memory_gb=memory_gb,
                flash_attn=flash_attn,
            )
            for line in planned.lines():
                typer.echo(line)
            for folder in unfinished_exports(repository):
                typer.echo(f"an unfinished export takes {folder_bytes(folder) / 1e6:,.1f} MB in {folder}")
            return None
        return export_checkpoint(
            checkpoint,
            repository,
            chosen,
            progress,
            limits=limits,
            reading=reading,
            target=_choose("target", target, TARGETS),
            flash_attn=flash_attn,
            range_data=calibration_data,
            gpu_memory_gb=gpu_memory,
            resume=resume,
            keep=keep,
            replace=_ask if not replace_model else lambda _: True,
        )

    try:
        with reported_errors():
            report = run()
    except KeyboardInterrupt as error:
        tell(f"interrupted; {repository} is as it was. The same command goes on with the next model")
        raise typer.Exit(EXIT_INTERRUPTED) from error
    if report is not None:
        _print_report(report, progress)
        typer.echo(f"{repository} is ready; load it with: {_load_command(repository)}")


def _ask(problem: str) -> bool:
    """Ask the user whether another model may be replaced; nobody can be asked where there is no terminal."""
    return sys.stdin.isatty() and typer.confirm(f"{problem}. Go on?")


def _load_command(repository: Path) -> str:
    """Return the command that loads what was written, as a shell takes it."""
    named = [] if repository == _DEFAULT_REPOSITORY else ["--repository", str(repository)]
    return shlex.join(["lychee", "load", *named])


def _print_report(report: ExportReport, progress: Callable[[str], None]) -> None:
    for name, size_bytes in report.sizes_bytes.items():
        progress(f"{name}: {size_bytes / 1e3:,.0f} kB")
    parity = report.parity
    progress(
        f"largest error {parity.max_abs_error:.1e}, of a score {parity.max_score_error:.1e}, of a logit "
        f"{parity.max_logit_error:.1e}; ranking order kept (tau {parity.kendall_tau:.2f}); batch and padding move a "
        f"score by {parity.batch_invariance:.1e}, a logit by {parity.logit_batch_invariance:.1e}"
    )
    for line in describe_reading(report.manifest):
        progress(line)
    progress(f"golden pairs, preprocessed by the client: largest error of a score {report.golden_error:.1e}")


def _limits(profile: str, **chosen: int | None) -> Limits:
    limits = PROFILES[_choose("profile", profile, PROFILES)]
    try:
        return replace(limits, **{name: value for name, value in chosen.items() if value is not None})
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _choose(kind: str, value: str, choices: Iterable[Choice]) -> Choice:
    names = list(choices)
    for name in names:
        if value.lower() == name:
            return name
    raise typer.BadParameter(f"unknown {kind} {value!r}; known are {', '.join(names)}")

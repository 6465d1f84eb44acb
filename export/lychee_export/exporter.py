"""The whole way from a checkpoint to a validated repository."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from lychee_client.exports import find_export, restore_exports
from lychee_client.manifest import Manifest
from lychee_client.repository import MODEL_FILENAME, VALIDATION_FILENAME, read_manifest

from lychee_export.checkpoint.range_data import RangeData, bundled_data, read_data
from lychee_export.checkpoint.reading import Reading
from lychee_export.checkpoint.weight_files import hash_files
from lychee_export.contract.limits import DEFAULT_GPU_MEMORY_GB, Limits
from lychee_export.contract.signature import ModelSignature, Tensors, hash_tensors
from lychee_export.errors import CheckpointError, WriteError
from lychee_export.estimate import check_disk_space, estimate_pieces
from lychee_export.families import Checkpoint, ModelCard, Piece, Reference, load_checkpoint
from lychee_export.families.weights import release_weights, return_memory
from lychee_export.gpu_memory import fit_gpu
from lychee_export.onnx.export import export_onnx
from lychee_export.onnx.fusion import fuse_attention
from lychee_export.onnx.half import HALF_TYPES, HalfModule, scaled_queries
from lychee_export.onnx.model_file import model_files
from lychee_export.onnx.padded_keys import has_varying_length, padded_keys
from lychee_export.onnx.quantization import QUANTIZED, Precision, check_runtime, quantize_weights
from lychee_export.onnx.runtime import open_session
from lychee_export.onnx.static_int8 import write_static_int8
from lychee_export.replacement import check_replacement
from lychee_export.repository.assets import CLIENT_ASSETS, write_assets
from lychee_export.repository.deployment import (
    OWN_VARIANTS,
    Target,
    can_choose,
    check_choice,
    config_files,
    root_files,
)
from lychee_export.repository.manifest import build_manifest, find_version, golden_tolerance
from lychee_export.repository.workspace import Workspace
from lychee_export.repository.writing import ModelFolder, linked_repository, write_models
from lychee_export.verification.expected import ExpectedValues, compute_expected
from lychee_export.verification.half_floats import HalfFloats, check_half_floats
from lychee_export.verification.in_process import measure_golden_error
from lychee_export.verification.reference_rows import REFERENCE_ROWS_FILENAME, write_reference_rows
from lychee_export.verification.validation import TOLERANCES, Parity, validate_contract, validate_values
from lychee_export.verification.validation_record import describe_validation
from lychee_export.work_keys import describe_maker, digest

__all__ = ["ExportReport", "export_checkpoint"]

DEFAULT_KEEP = 3
_FLOAT32_SUFFIX = ".fp32"
"""Of a model's folder in the workspace while its weights wait to be quantized."""


@dataclass(frozen=True)
class ExportReport:
    """What an export wrote and measured.

    Args:
        sizes_bytes: The size of each model's files in bytes, by model name.
        parity: The measured differences from the reference, on ONNX Runtime's plain CPU provider.
        golden_error: The largest difference of a golden pair's score, when the client preprocesses.
        manifest: The manifest that was written.
    """

    sizes_bytes: dict[str, int]
    parity: Parity
    golden_error: float
    manifest: Manifest


@dataclass(frozen=True)
class _Plan:
    """What the user chose."""

    repository: Path
    precision: Precision
    target: Target
    flash_attn: bool
    progress: Callable[[str], None]
    gpu_shares: Mapping[str, int]
    keep: int

    def precision_of(self, signature: ModelSignature) -> Precision:
        """Only encoders are large enough to be worth fewer bits."""
        return self.precision if signature.encoder else "fp32"


def export_checkpoint(
    checkpoint: str,
    repository: Path,
    precision: Precision = "fp32",
    progress: Callable[[str], None] = lambda _: None,
    *,
    limits: Limits | None = None,
    reading: Reading | None = None,
    target: Target = "cpu",
    flash_attn: bool = False,
    range_data: Path | None = None,
    gpu_memory_gb: float = DEFAULT_GPU_MEMORY_GB,
    resume: bool = False,
    keep: int = DEFAULT_KEEP,
    replace: Callable[[str], bool] = lambda _: False,
) -> ExportReport:
    """Turn a checkpoint into models of a Triton repository.

    An export that was interrupted, or whose validation failed, goes on with its finished models when it is started
    again in the same way.

    Args:
        checkpoint: The name of a bundled checkpoint, the path of a checkpoint folder, or "owner/name" on the hub.
        repository: The folder of the model repository; it is made if it is absent.
        precision: The precision of the weights.
        progress: Called with a line for each step.
        limits: What the deployment admits. None takes the default limits.
        reading: How the checkpoint is found and read. None takes what it says itself.
        target: The hardware that the configurations are for.
        flash_attn: Whether attention becomes one fused operator of ONNX Runtime.
        range_data: The folder of texts and images for s8. None takes bundled ones.
        gpu_memory_gb: The memory of the GPU in gigabytes, which batches are limited to; for targets with a GPU.
        resume: Whether models that another version of the exporter finished are taken over instead of made again.
        keep: How many exports the repository holds from then on, this one counted.
        replace: Asked where the repository holds another model, with a sentence that says so: whether to go on.

    Raises:
        CheckpointError: The checkpoint or the range data cannot be read, or the precision is not for it.
        OtherModelError: The repository holds another model, and that one is to stay.
        ValidationError: An exported model breaks the contract or differs from the reference.
        WriteError: The repository cannot be written.
    """
    check_choice(precision, target, flash_attn=flash_attn)
    if precision != "s8" and range_data is not None:
        raise CheckpointError(
            f"range data (--calibration-data) is for precision s8 alone, the precision is {precision}; leave it out"
        )
    check_runtime(precision, progress)
    data = bundled_data() if range_data is None else read_data(range_data)
    shares: Mapping[str, int] = {}
    if target != "cpu":
        empty = load_checkpoint(checkpoint, limits, reading, weights=False)
        limits, shares = fit_gpu(empty, limits, precision, gpu_memory_gb, progress, fused=flash_attn)
    plan = _Plan(repository, precision, target, flash_attn, progress, shares, keep)
    progress(f"loading {checkpoint}")
    loaded = load_checkpoint(checkpoint, limits, reading)
    card = loaded.card
    restore_exports(repository)
    check_replacement(repository, card.spec, replace)
    samples = _make_samples(loaded, data) if precision == "s8" else {}
    sizes = estimate_pieces(loaded.pieces, precision)
    try:
        check_disk_space(repository, sizes)
        workspace = Workspace(repository, _key(loaded, plan, samples), describe_maker(), resume=resume)
    except OSError as error:
        raise WriteError(f"cannot write the model repository {repository}: {error}") from error
    with workspace.kept_if_useful():
        progress("running the reference")
        reference = loaded.make_reference()
        for note in reference.notes:
            progress(note)
        expected = compute_expected(loaded, reference)
        half = check_half_floats(loaded, reference, precision, progress)
        _export_pieces(loaded.pieces, workspace, plan, half)
        release_weights(loaded.pieces)
        del loaded
        return_memory()
        _quantize_pieces(expected.signatures, workspace, plan, samples)
        parity = _validate(expected, workspace, plan)
        return _write(card, reference, expected, parity, half, workspace, plan)


def _make_samples(checkpoint: Checkpoint, data: RangeData) -> Mapping[str, tuple[Tensors, ...]]:
    """Prepare the range data for the checkpoint's encoders.

    Raises:
        CheckpointError: The family has no static int8.
    """
    if checkpoint.sample_ranges is None:
        raise CheckpointError(
            f"precision s8 is for dual encoders (lychee-mini, CLIP, Chinese-CLIP, SigLIP, SigLIP 2); "
            f"{checkpoint.card.spec.model_id} is of the family {checkpoint.card.spec.family}. Choose --precision w8"
        )
    return checkpoint.sample_ranges(data)


def _key(checkpoint: Checkpoint, plan: _Plan, samples: Mapping[str, tuple[Tensors, ...]]) -> str:
    """Name what the exported files are made from."""
    signatures = [piece.signature for piece in checkpoint.pieces]
    card = checkpoint.card
    choice = (plan.precision, plan.target, plan.flash_attn, card.spec.prompt, hash_tensors(samples))
    return digest(card.spec.family, card.spec.model_id, card.spec.revision, choice, signatures)


def _export_pieces(pieces: tuple[Piece, ...], workspace: Workspace, plan: _Plan, half: HalfFloats | None) -> None:
    """Export what an earlier run has not finished; heads first, because halving an encoder may halve theirs."""
    for piece in sorted(pieces, key=lambda piece: piece.signature.encoder):
        signature = piece.signature
        precision = plan.precision_of(signature)
        name = signature.name + (_FLOAT32_SUFFIX if precision in QUANTIZED else "")
        if workspace.find(signature.name) is not None or workspace.find(name) is not None:
            plan.progress(f"{signature.name} is finished already")
            continue
        plan.progress(f"exporting {signature.name}")
        if half is not None and signature.encoder:
            HalfModule(piece.module, HALF_TYPES[precision], half.kept[signature.name])
        workspace.make(name, partial(_export_piece, piece, plan))


def _export_piece(piece: Piece, plan: _Plan, folder: Path) -> None:
    path = folder / MODEL_FILENAME
    signature = piece.signature
    may_be_bfloat16 = can_choose(signature, plan.precision, plan.target, flash_attn=plan.flash_attn)
    pads = may_be_bfloat16 and has_varying_length(signature)
    attention = padded_keys if pads else scaled_queries if plan.precision in HALF_TYPES else contextlib.nullcontext
    with attention(piece.module):
        export_onnx(piece, path)
    validate_contract(path, signature)
    if not signature.encoder:
        return
    if plan.flash_attn:
        plan.progress(f"fused {fuse_attention(path, piece.signature.name)} attention layers of {piece.signature.name}")


def _quantize_pieces(
    signatures: tuple[ModelSignature, ...],
    workspace: Workspace,
    plan: _Plan,
    samples: Mapping[str, tuple[Tensors, ...]],
) -> None:
    for signature in signatures:
        precision = plan.precision_of(signature)
        if precision not in QUANTIZED or workspace.find(signature.name) is not None:
            continue
        plan.progress(f"quantizing {signature.name}")
        source = workspace.folder / f"{signature.name}{_FLOAT32_SUFFIX}" / MODEL_FILENAME
        if precision == "s8":
            quantize = partial(_quantize_static, source, samples[signature.name], plan)
        else:
            quantize = partial(_quantize_weights, source, precision)
        workspace.make(signature.name, quantize)
        workspace.discard(source.parent.name)
        return_memory()


def _quantize_weights(source: Path, precision: Precision, folder: Path) -> None:
    quantize_weights(source, folder / MODEL_FILENAME, precision)


def _quantize_static(source: Path, samples: tuple[Tensors, ...], plan: _Plan, folder: Path) -> None:
    report = write_static_int8(source, folder / MODEL_FILENAME, samples)
    plan.progress(
        f"{report.products - len(report.kept)} of {report.products} products compute in 8 bits; the largest error of "
        f"one is {max(error for name, error in report.errors.items() if name not in report.kept):.1%} of its output"
    )


def _validate(expected: ExpectedValues, workspace: Workspace, plan: _Plan) -> Parity:
    plan.progress("validating")

    def open_model(signature: ModelSignature) -> Any:
        return open_session(workspace.folder / signature.name / MODEL_FILENAME)

    parity = validate_values(expected, open_model, TOLERANCES[plan.precision])
    return_memory()
    return parity


def _write(
    card: ModelCard,
    reference: Reference,
    expected: ExpectedValues,
    parity: Parity,
    half: HalfFloats | None,
    workspace: Workspace,
    plan: _Plan,
) -> ExportReport:
    plan.progress(f"writing {plan.repository}")
    signatures = expected.signatures
    names = [signature.name for signature in signatures]
    files = {name: model_files(workspace.folder / name) for name in names}
    sizes = {name: sum(path.stat().st_size for path in paths) for name, paths in files.items()}
    artifacts = {f"{name}/{file}": value for name in names for file, value in workspace.hashes(name).items()}
    artifacts["tokenizer"] = hashlib.sha256(card.tokenizer_json.encode()).hexdigest()
    assets = workspace.folder / CLIENT_ASSETS.name
    assets.mkdir(exist_ok=True)
    files[CLIENT_ASSETS.name] = _write_reference_rows(assets, card, reference, expected, plan)
    for path in files[CLIENT_ASSETS.name]:
        artifacts[f"{CLIENT_ASSETS.name}/{path.name}"] = hash_files((path,))
    models = (*signatures, *card.inner_ensembles, *card.ensembles)
    configs = config_files(
        (*models, CLIENT_ASSETS), plan.precision, plan.target, flash_attn=plan.flash_attn, gpu_shares=plan.gpu_shares
    )

    seen = [model for model in models if model.name not in card.hidden]

    def describe(tolerance: float) -> Manifest:
        pairs = reference.golden_pairs
        return build_manifest(card, seen, pairs, plan.precision, tolerance, artifacts, flash_attn=plan.flash_attn)

    def make_folders(manifest: Manifest) -> list[ModelFolder]:
        written = write_assets(assets, manifest, card.tokenizer_json)
        validate_contract(written[0], CLIENT_ASSETS)
        own = {**files, CLIENT_ASSETS.name: (*written, *files[CLIENT_ASSETS.name])}
        return [ModelFolder(name, *texts, files=own.get(name, ())) for name, texts in configs.items()]

    accepted = TOLERANCES[plan.precision].score_atol
    trial = describe(accepted)
    version = find_version(trial)
    with linked_repository(make_folders(trial), version, workspace.folder) as linked:
        golden_error = measure_golden_error(linked, accepted)
    manifest = describe(golden_tolerance(golden_error))
    before = read_manifest(plan.repository)
    before_version = 0 if before is None else before.version or 0
    left = write_models(
        plan.repository,
        make_folders(manifest),
        version,
        own_variants=OWN_VARIANTS,
        keep=plan.keep,
        root_files={
            **root_files(signatures, plan.precision, plan.target),
            VALIDATION_FILENAME: describe_validation(parity, golden_error, plan.precision, half),
        },
    )
    kept = before_version not in (0, version) and find_export(plan.repository, before_version) is not None
    for name, models_left in left.items():
        plan.progress(
            f"{f'left behind with export {before_version}' if kept else 'removed'}: configs/{name}.pbtxt of "
            f"{', '.join(models_left)}, whose own configuration has changed; if it came from `lychee tune`, tune again"
        )
    return ExportReport(sizes, parity, golden_error, manifest)


def _write_reference_rows(
    assets: Path, card: ModelCard, reference: Reference, expected: ExpectedValues, plan: _Plan
) -> tuple[Path, ...]:
    """Write the rows for the ensembles in which a server may choose what executes a model; none if there is none."""
    ensembles = [
        ensemble
        for ensemble in card.ensembles
        if any(can_choose(step, plan.precision, plan.target, flash_attn=plan.flash_attn) for step in ensemble.steps)
    ]
    if not ensembles:
        return ()
    path = assets / REFERENCE_ROWS_FILENAME
    write_reference_rows(path, ensembles, reference, expected)
    return (path,)

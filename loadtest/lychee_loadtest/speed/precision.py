"""Compare the precisions of ``lychee export`` on one machine: size, speed, parity, rankings, average precision.

Exports the bundled model in each precision (kept in ``--work-dir`` for the next run), opens the encoders as a server
would with each execution (see ``execution.py``), and times them in turn, round by round. A row that this machine lacks
says why. ``fp16`` is for GPUs and is left out.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from lychee_client import LycheeClient
from lychee_client.repository import ASSETS_MODEL, MODEL_FILENAME, newest_version
from lychee_evaluate.calibration.pair_scores import score_pairs
from lychee_evaluate.calibration.pairs import Pair, read_pairs
from lychee_evaluate.calibration.threshold_search import average_precision
from lychee_export.errors import ValidationError
from lychee_export.exporter import export_checkpoint
from lychee_export.onnx.quantization import Precision
from lychee_export.verification.in_process import InProcessTransport
from lychee_server.examples import find_example
from lychee_server.execution.onnx_sessions import CUDA_PROVIDER
from numpy.typing import NDArray
from scipy.stats import kendalltau

from lychee_loadtest.execution import ENCODERS, EXECUTIONS, available_executions, open_session
from lychee_loadtest.folders import RESULTS, write_record
from lychee_loadtest.machine import describe_machine

FORMAT = 2
EXPORTS: tuple[Precision, ...] = ("fp32", "w8", "w4", "s8")
REFERENCE = "fp32 cpu-fp32"
NOT_HERE = "not on this CPU"
ROUNDS = 7
RESAMPLES = 2000
WORKLOADS = {  # ms per item of one run: encoder, rows, tokens
    "text_16": ("text_encoder", 1, 16),
    "text_64": ("text_encoder", 1, 64),
    "text_16_batch_16": ("text_encoder", 16, 16),
    "image": ("vision_encoder", 1, 0),
    "image_batch_4": ("vision_encoder", 4, 0),
}

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Row:
    """An export's encoders, ready to run."""

    repository: Path
    encoders: Mapping[str, onnxruntime.InferenceSession]


class RowTransport(InProcessTransport):
    """A server in this process that runs a row's encoders; all other models run on the plain CPU provider."""

    def __init__(self, row: Row) -> None:
        super().__init__(row.repository)
        self._sessions.update(row.encoders)


@dataclass(frozen=True)
class Quality:
    """How far scores are from those of float32, on the labelled pairs.

    Args:
        max_score_error: The largest difference of a score.
        min_cosine: The smallest cosine of an embedding with float32's.
        batch_move: The largest difference that an element of an embedding shows between a row alone and in a batch.
        kendall_tau: Kendall's tau with float32's order, as the mean over the queries with at least three documents.
        average_precision: The average precision over all pairs.
        change: How far that is from float32's average precision, in points.
        change_low: The lower end of the 95 % interval of `change`, queries resampled.
        change_high: The upper end of that interval.
    """

    max_score_error: float
    min_cosine: float
    batch_move: float
    kendall_tau: float
    average_precision: float
    change: float
    change_low: float
    change_high: float


def export_all(folder: Path) -> tuple[dict[str, Path], dict[str, str]]:
    """Export each precision that is not there yet.

    Returns:
        Repositories by precision, and why the exporter refuses the others.
    """
    repositories: dict[str, Path] = {}
    refused: dict[str, str] = {}
    for precision in EXPORTS:
        path = folder / precision
        if not (path / ASSETS_MODEL).is_dir():
            print(f"exporting {precision}", flush=True)
            try:
                export_checkpoint("lychee-mini", path, precision)
            except ValidationError as error:
                refused[precision] = f"refused: {error}"
                continue
        repositories[precision] = path
    return repositories, refused


def model_path(repository: Path, name: str) -> Path:
    """Return the file of the newest version."""
    return newest_version(repository / name) / MODEL_FILENAME


def disk_bytes(repository: Path) -> int:
    """Return the size of both encoders' files."""
    return sum(
        path.stat().st_size for name in ENCODERS for path in model_path(repository, name).parent.glob("model.onnx*")
    )


def make_inputs(encoder: str, rows: int, tokens: int) -> dict[str, Any]:
    """Make a batch: random tokens, or random pixels; speed does not depend on them."""
    rng = np.random.default_rng(rows + tokens)
    if encoder == "vision_encoder":
        return {"pixel_values": rng.integers(0, 256, (rows, 3, 224, 224), dtype=np.uint8)}
    ids = rng.integers(4, 42000, (rows, tokens))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def open_rows(repositories: Mapping[str, Path]) -> tuple[dict[str, Row], dict[str, str]]:
    """Open each export with each execution.

    Returns:
        Rows by "export execution", and why the others are missing.
    """
    rows: dict[str, Row] = {}
    missing: dict[str, str] = {}
    for export, repository in repositories.items():
        for execution in EXECUTIONS:
            name = f"{export} {execution}"
            if execution not in available_executions():
                if EXECUTIONS[execution].provider != CUDA_PROVIDER:  # on a machine with a CPU alone it is no gap
                    missing[name] = NOT_HERE
                continue
            try:
                rows[name] = Row(repository, open_encoders(repository, execution))
            except Exception as error:  # ONNX Runtime's errors have no common base
                missing[name] = f"does not load: {' '.join(str(error).split())[:200]}"
    return rows, missing


def open_encoders(repository: Path, execution: str) -> dict[str, onnxruntime.InferenceSession]:
    """Open both encoders."""
    return {encoder: open_session(model_path(repository, encoder), execution) for encoder in ENCODERS}


def measure_speed(rows: Mapping[str, Row]) -> dict[str, dict[str, float]]:
    """Return ms per item by row and workload: medians of rounds in which each row has its turn."""
    timed: dict[str, dict[str, float]] = {name: {} for name in rows}
    for workload, (encoder, count, tokens) in WORKLOADS.items():
        inputs = make_inputs(encoder, count, tokens)
        times: dict[str, list[float]] = {name: [] for name in rows}
        for row in rows.values():
            row.encoders[encoder].run(None, inputs)
        for _ in range(ROUNDS):
            for name, row in rows.items():
                started = time.perf_counter()
                row.encoders[encoder].run(None, inputs)
                times[name].append((time.perf_counter() - started) / count * 1e3)
        for name, values in times.items():
            timed[name][f"{workload}_ms"] = statistics.median(values)
    return timed


def score(client: LycheeClient, pairs: tuple[Pair, ...]) -> Array:
    """Return the logits of labelled pairs, (pairs,)."""
    scored = score_pairs(client, pairs)
    if len(scored.pairs) != len(pairs):
        raise RuntimeError(f"{len(pairs) - len(scored.pairs)} of {len(pairs)} pairs have no score: {scored.skipped}")
    return np.asarray(scored.logits, np.float64)


def embed(encoders: Mapping[str, onnxruntime.InferenceSession]) -> dict[str, Array]:
    """Embed the same inputs alone and in a batch; what both must agree on."""
    embeddings = {}
    for encoder, session in encoders.items():
        inputs = make_inputs(encoder, 8, 32)
        embeddings[encoder] = np.asarray(session.run(None, inputs)[0], np.float64)
        alone = [
            session.run(None, {name: value[row : row + 1] for name, value in inputs.items()})[0] for row in range(8)
        ]
        embeddings[f"{encoder} alone"] = np.concatenate(alone).astype(np.float64)
    return embeddings


def compare(
    pairs: tuple[Pair, ...], logits: Array, exact: Array, embedded: dict[str, Array], reference: dict[str, Array]
) -> Quality:
    """Compare scores and embeddings with those of float32."""
    labels = np.array([bool(pair.relevant) for pair in pairs])
    numbers: dict[object, int] = {}
    queries = np.array([numbers.setdefault(pair.query_key, len(numbers)) for pair in pairs])
    low, high = bootstrap(labels, queries, logits, exact)
    change = average_precision(logits, labels) - average_precision(exact, labels)
    groups = [queries == number for number in range(len(numbers)) if (queries == number).sum() >= 3]
    return Quality(
        max_score_error=float(np.abs(sigmoid(logits) - sigmoid(exact)).max()),
        min_cosine=min(float((embedded[name] * reference[name]).sum(-1).min()) for name in ENCODERS),
        batch_move=max(float(np.abs(embedded[name] - embedded[f"{name} alone"]).max()) for name in ENCODERS),
        kendall_tau=float(np.mean([kendalltau(logits[group], exact[group]).statistic for group in groups])),
        average_precision=average_precision(logits, labels),
        change=float(100 * change),
        change_low=low,
        change_high=high,
    )


def bootstrap(
    labels: NDArray[np.bool_], queries: NDArray[np.int64], logits: Array, exact: Array
) -> tuple[float, float]:
    """Return the 95 % interval of the change of average precision, in points: whole queries are drawn again."""
    rng = np.random.default_rng(0)
    members = [np.flatnonzero(queries == number) for number in range(int(queries.max()) + 1)]
    changes = []
    for _ in range(RESAMPLES):
        rows = np.concatenate([members[index] for index in rng.integers(0, len(members), len(members))])
        if labels[rows].any():
            after, before = (average_precision(values[rows], labels[rows]) for values in (logits, exact))
            changes.append(100 * (after - before))
    low, high = np.percentile(changes, [2.5, 97.5])
    return float(low), float(high)


def sigmoid(logits: Array) -> Array:
    """Return scores."""
    return np.asarray(1 / (1 + np.exp(-logits)), np.float64)


def main() -> None:
    """Print the tables and write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work-dir", type=Path, default=RESULTS / "precision")
    parser.add_argument("--output", type=Path, default=RESULTS / "precision.json")
    arguments = parser.parse_args()
    machine = describe_machine()
    arguments.work_dir.mkdir(parents=True, exist_ok=True)
    repositories, refused = export_all(arguments.work_dir)
    path = find_example("calibration", "pairs.csv")
    assert path is not None
    pairs = read_pairs(path, labelled=True).pairs
    sizes = {name: disk_bytes(repository) for name, repository in repositories.items()}
    print(f"{machine['cpu']}, {machine['cores']} cores, bfloat16: {machine['bfloat16']}, {machine['date']}")
    print(f"{len(pairs)} labelled pairs, {sum(bool(pair.relevant) for pair in pairs)} relevant")
    rows, missing = open_rows(repositories)
    missing |= refused
    reference = embed(rows[REFERENCE].encoders)
    quality: dict[str, Quality] = {}
    exact = np.empty(0)
    for name, row in rows.items():
        with LycheeClient("grpc://in-process:1", transport=RowTransport(row), embedding_cache=None) as client:
            logits = score(client, pairs)
        exact = logits if name == REFERENCE else exact
        quality[name] = compare(pairs, logits, exact, embed(row.encoders), reference)
        found = quality[name]
        print(
            f"{name:18} {sizes[name.split()[0]] / 1e6:6.1f} MB  score error {found.max_score_error:.3f}  cosine "
            f"{found.min_cosine:.4f}  batch {found.batch_move:.0e}  tau {found.kendall_tau:.3f}  AP "
            f"{100 * found.average_precision:.1f} ({found.change:+.2f}, {found.change_low:+.2f} to "
            f"{found.change_high:+.2f} points)",
            flush=True,
        )
    for name, reason in missing.items():
        print(f"{name:18} {reason}")
    speed = measure_speed(rows)
    for name, times in speed.items():
        print(f"{name:18} " + "  ".join(f"{workload} {value:.2f}" for workload, value in times.items()))
    content = {
        "format": FORMAT,
        "machine": machine,
        "pairs": len(pairs),
        "size_bytes": sizes,
        "quality": {name: asdict(found) for name, found in quality.items()},
        "speed": speed,
        "missing": missing,
    }
    write_record(arguments.output, content)
    print(f"written to {arguments.output}")


if __name__ == "__main__":
    main()

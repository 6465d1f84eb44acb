"""What was measured and chosen, as JSON and as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from lychee_server.defaults import MIB

from lychee_loadtest.tune.choice import MIN_GAIN, Bounds, Point
from lychee_loadtest.tune.study import Curve, Effort, Study

__all__ = ["FORMAT", "describe_point", "study_lines", "to_json"]

FORMAT: Final = 1
LOUD: Final = 0.2  # above, differences of the size that matters disappear


def to_json(
    studies: Sequence[Study], machine: Mapping[str, Any], name: str, model_id: str, effort: Effort, limits: Bounds
) -> dict[str, Any]:
    """Return everything that was measured; numbers have their unit in the key."""
    return {
        "format": FORMAT,
        "machine": dict(machine),
        "model_id": model_id,
        "config_name": name,
        "min_gain": MIN_GAIN,
        "rounds": effort.rounds,
        "latency_limit_ms": limits.latency_ms,
        "max_memory_bytes": limits.memory_bytes,
        "models": [_study_json(study) for study in studies],
    }


def study_lines(study: Study) -> list[str]:
    """Return a table of the batch sizes, then the reasons."""
    lines = [f"{study.subject.name} ({study.subject.modality})"]
    for curve in study.curves:
        lines.append(f"  {curve.workload.name:>16}      rows/s    p50 ms    p99 ms    memory")
        for point in curve.points:
            mark = "  <" if point is curve.chosen else ""
            lines.append(f"  {'batch ' + point.name:>16} {describe_point(point)}{mark}")
        lines += [f"  batch {reason}" for reason in curve.left_out]
    lines += [f"  {reason}" for reason in study.reasons]
    lines.append(f"  noise: {study.noise:.0%} between the rounds of a setting{_advise(study.noise)}")
    return lines


def describe_point(point: Point) -> str:
    """Return a point's numbers as columns."""
    return f"{point.throughput:11.1f} {point.p50_ms:9.1f} {point.p99_ms:9.1f} {point.memory_bytes / MIB:6.0f} MiB"


def _advise(noise: float) -> str:
    if noise <= LOUD:
        return ""
    return "; other programs use the cores, so repeat this on a quiet machine before you rely on it"


def _study_json(study: Study) -> dict[str, Any]:
    return {
        "model": study.subject.name,
        "modality": study.subject.modality,
        "curves": [_curve_json(curve) for curve in study.curves],
        "instances": [_point_json(point) for point in study.instances],
        "queue_delays": [_point_json(point) for point in study.delays],
        "before": _point_json(study.current),
        "settings": asdict(study.settings),
        "reasons": list(study.reasons),
        "noise": round(study.noise, 3),
    }


def _curve_json(curve: Curve) -> dict[str, Any]:
    return {
        "inputs": curve.workload.name,
        "batches": [_point_json(point) for point in curve.points],
        "chosen_batch": curve.chosen.rows,
        "reason": curve.reason,
        "left_out": list(curve.left_out),
    }


def _point_json(point: Point) -> dict[str, Any]:
    return {
        "name": point.name,
        "rows": point.rows,
        "rows_per_s": round(point.throughput, 2),
        "rows_per_s_by_round": [round(value, 2) for value in point.rows_per_s],
        "p50_ms": round(point.p50_ms, 2),
        "p99_ms": round(point.p99_ms, 2),
        "requests": len(point.latencies_ms),
        "memory_bytes": point.memory_bytes,
    }

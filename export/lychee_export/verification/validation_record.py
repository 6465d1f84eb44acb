"""What an export has measured on its machine, for people; nothing else in a repository depends on the machine."""

from __future__ import annotations

import dataclasses
import json
import platform
from datetime import UTC, datetime
from pathlib import Path

from lychee_client.exports import EXPORTED_AT

from lychee_export.onnx.quantization import LEAST_RUNTIMES, Precision
from lychee_export.verification.half_floats import HalfFloats
from lychee_export.verification.validation import Parity

__all__ = ["describe_validation"]


def describe_validation(
    parity: Parity, golden_error: float, precision: Precision, half: HalfFloats | None = None
) -> str:
    """Write the JSON file.

    Args:
        parity: The measured differences from the reference, on ONNX Runtime's plain CPU provider.
        golden_error: The largest difference of a golden pair's score, as the client scores the exported files.
        precision: The precision of the weights, which may need a newer ONNX Runtime where it is served.
        half: What half floats computed, if the weights are such.
    """
    at = datetime.now(UTC).isoformat(timespec="seconds")
    record = {EXPORTED_AT: at, "cpu": _cpu(), **dataclasses.asdict(parity), "golden_error": golden_error}
    if precision in LEAST_RUNTIMES:
        record["least_onnxruntime"] = LEAST_RUNTIMES[precision]
    if half is not None:
        record |= {"half_float_score_error": half.score_error, "float32_parts": half.kept}
    return json.dumps(record, indent=1) + "\n"


def _cpu() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())

"""What Triton says of its failures, cut to what helps."""

import re
from pathlib import Path

LOG_TAIL_LINES = 10
_EIGHT_BITS = "MatMulNBits"
"""The operator of `lychee export --precision w8` and `w4`: older versions of ONNX Runtime have it for 4 bits alone."""


def clean_reason(reason: str) -> str:
    """Cut Triton's reason for a failed load to its cause: no stack trace, no copy of another model's reason."""
    dependency = re.search(r"depends on '([^']+)' which has no loaded version", reason)
    if dependency:
        return f"depends on {dependency[1]}, which is not loaded"
    noise = r"^([EWIF]\d{4} [^\]]*\] \"?)?(Poll failed for [^:]*: )?(Internal: )?(TritonModelException: )?"
    cause = re.sub(noise, "", reason.split("\n\nAt:")[0]).strip(' "\n')
    if _EIGHT_BITS in cause:
        cause += (
            " (weights of 8 bits need ONNX Runtime 1.22 or later in Triton's backend: take a newer Triton, or export "
            "with --precision w4 or fp32)"
        )
    return cause


def read_error_lines(log_path: Path, count: int | None = LOG_TAIL_LINES) -> list[str]:
    """Return the last error lines of Triton's log; without any, its last lines."""
    lines = [line for line in log_path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"E\d{4} |(error|fatal|terminate called)", line, re.IGNORECASE)]
    chosen = errors or lines
    return chosen if count is None else chosen[-count:]

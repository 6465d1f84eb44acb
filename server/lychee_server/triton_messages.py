"""What Triton says of its failures, cut to what helps."""

import re
from pathlib import Path

LOG_TAIL_LINES = 10
LOG_TAIL_BYTES = 2**16
LOG_LINE_CHARACTERS = 500
_ERROR_LINE = re.compile(r"E\d{4} |(error|fatal|terminate called)", re.IGNORECASE)
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
    errors = [line for line in lines if _ERROR_LINE.match(line)]
    chosen = errors or lines
    return chosen if count is None else chosen[-count:]


def read_last_errors(log_path: Path, count: int = LOG_TAIL_LINES) -> list[str]:
    """Return the error lines at the end of Triton's log, newest first; the home folder in them becomes "~".

    Raises:
        OSError: The log cannot be read.
    """
    with log_path.open("rb") as log:
        log.seek(max(0, log.seek(0, 2) - LOG_TAIL_BYTES))
        tail = log.read().decode("utf-8", "replace").replace(str(Path.home()), "~")
    errors = [line[:LOG_LINE_CHARACTERS] for line in tail.splitlines() if _ERROR_LINE.match(line)]
    return errors[: -count - 1 : -1]

"""What Triton says of its failures, cut to what helps."""

import re
from pathlib import Path

from lychee_server.log_files import read_tail

LOG_TAIL_LINES = 10
LOG_TAIL_BYTES = 2**16
LOG_LINE_CHARACTERS = 500
_ERROR_LINE = re.compile(r"E\d{4} |(lychee: |error|fatal|terminate called)", re.IGNORECASE)
_EIGHT_BITS = "MatMulNBits"
"""The operator of `lychee export --precision w8` and `w4`: older versions of ONNX Runtime have it for 4 bits alone."""


# What Triton logs as errors where there is no driver of NVIDIA, and does without, and its warning when an ensemble is
# asked for the first time: no option leaves these out.
_NO_GPU = re.compile(
    rb'^[EW](\d{4} [^\]\n]*\] )"(?:CudaDriverHelper has not been initialized\.|unable to create stream for [^"\n]*'
    rb'|failed to allocate pinned system memory: no pinned memory pool[^"\n]*)"',
    re.M,
)
_NO_GPU_NOTE = b'I%b"no GPU here, and none is needed"'


def calm_log(log_path: Path) -> None:
    """Turn what Triton complains of because there is no GPU into notes, in place: Triton goes on writing the file."""
    with log_path.open("r+b") as file:
        for match in _NO_GPU.finditer(file.read()):
            file.seek(match.start())
            file.write((_NO_GPU_NOTE % match[1]).ljust(len(match[0])))


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
    text = _NO_GPU.sub(b"", log_path.read_bytes()).decode("utf-8", errors="replace")
    lines = [line for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if _ERROR_LINE.match(line)]
    chosen = errors or lines
    return chosen if count is None else chosen[-count:]


def read_last_errors(log_path: Path, count: int = LOG_TAIL_LINES) -> list[str]:
    """Return the error lines at the end of Triton's log, newest first; the home folder in them becomes "~".

    Raises:
        OSError: The log cannot be read.
    """
    tail = _NO_GPU.sub(b"", read_tail(log_path, LOG_TAIL_BYTES).encode()).decode().replace(str(Path.home()), "~")
    errors = [line[:LOG_LINE_CHARACTERS] for line in tail.splitlines() if _ERROR_LINE.match(line)]
    return errors[: -count - 1 : -1]


def find_reason(log_path: Path, name: str) -> str:
    """Return why a model failed that Triton leaves out of its index, as one whose configuration it cannot read."""
    whole_name = re.compile(rf"(?<!\w){re.escape(name)}(?!\w)")
    lines = [line for line in read_error_lines(log_path, count=None) if whole_name.search(line)]
    return clean_reason(lines[-1]) if lines else "not loaded, for a reason that only the log may tell"

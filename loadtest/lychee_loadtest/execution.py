"""What executes an encoder, as the load programs need it: asked of a server, and opened in process alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, Literal

import onnxruntime
from lychee_client import LycheeClient
from lychee_server.execution.onnx_sessions import (
    EXECUTIONS,
    available_cpus,
    available_executions,
    lacks_bfloat16,
    read_cpuinfo,
)
from lychee_server.execution.onnx_sessions import open_session as open_executed

__all__ = [
    "ENCODERS",
    "EXECUTIONS",
    "available_executions",
    "computes_bfloat16",
    "open_session",
    "precision_of",
    "read_executions",
]

ENCODERS: Final = ("text_encoder", "vision_encoder")


def computes_bfloat16() -> bool:
    """Whether this CPU has instructions for bfloat16: without them it is emulated, and slower than float32."""
    return not lacks_bfloat16(read_cpuinfo())


def precision_of(execution: str) -> Literal["fp32", "bf16"]:
    """Return in which precision an execution computes what the export left in floats: what is coarser counts as bf16.

    TF32 and half floats have more bits than bfloat16, so what is allowed to it is enough for them.
    """
    return "fp32" if EXECUTIONS[execution].precision == "fp32" else "bf16"


def read_executions(url: str) -> dict[str, str]:
    """Ask a server what executes its encoders.

    Raises:
        LycheeError: It does not answer.
    """
    with LycheeClient(url) as client:
        found = client.manifest().execution
    return {name: f"{found[name].provider}-{found[name].precision}" for name in ENCODERS}


def open_session(path: Path, execution: str, threads: int | None = None) -> Any:
    """Open a model file as the server does.

    Args:
        path: The model file.
        execution: What executes it, a name of EXECUTIONS.
        threads: How many threads it gets. None gives it all cores of this process.

    Raises:
        UnusableExecutionError: ONNX Runtime cannot execute it in this way.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or available_cpus()
    options.log_severity_level = 3
    return open_executed(path, execution, options)

"""Infinity as a server of its own, in an environment of its own, called over its REST interface."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np

from lychee_loadtest.compare.callers import JsonConnection, Scores
from lychee_loadtest.compare.documents import Call
from lychee_loadtest.compare.environments import Environment, PreparationError
from lychee_loadtest.compare.processes import ENVIRONMENT, pick_ports, serve

__all__ = ["ENGINES", "InfinityCaller", "environment_of", "export_for_optimum", "run_infinity"]

ENGINES: Final = {"fp32": ("torch", "optimum"), "bf16": ("torch",)}
"""Infinity's engines by precision: its ONNX engine computes in float32 alone on CPUs."""
_DTYPES: Final = {"fp32": "float32", "bf16": "bfloat16"}
_REQUIREMENTS: Final = Path(__file__).parent / "requirements.txt"
_MODEL: Final = "reranker"
_SMALLEST: Final = 1e-12


class InfinityCaller:
    """Infinity's ``/rerank``."""

    def __init__(self, connection: JsonConnection) -> None:
        self._connection = connection

    def rank(self, call: Call) -> Scores:
        """Score every document."""
        body = {"model": _MODEL, "query": call.query, "documents": call.documents, "raw_scores": True}
        answer = self._connection.post("/rerank", body)
        scores = np.full(len(call.documents), np.nan)
        for result in answer["results"]:
            scores[result["index"]] = result["relevance_score"]
        return scores


def environment_of(path: Path) -> Environment:
    """Return the environment in a folder, which `prepare` makes."""
    return Environment(path.name, path.parent, _REQUIREMENTS)


def export_for_optimum(environment: Environment, checkpoint: Path, folder: Path, log: Path) -> None:
    """Export a checkpoint as Infinity's ONNX engine wants it, with the exporter that the engine's authors name.

    Raises:
        PreparationError: The exporter failed.
    """
    command = [str(environment.python.parent / "optimum-cli"), "export", "onnx", "--model", str(checkpoint)]
    command += ["--task", "text-classification", str(folder)]
    with log.open("wb") as output:
        done = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, env=os.environ | ENVIRONMENT)
    if done.returncode:
        raise PreparationError(f"{' '.join(command)} ended with exit code {done.returncode}; see {log}")


@contextmanager
def run_infinity(
    environment: Environment, engine: str, precision: str, checkpoint: Path, log: Path
) -> Iterator[InfinityCaller]:
    """Run the server with its own defaults, but without its warm-up: the benchmark sends one of its own.

    Raises:
        PreparationError: It did not start, or its environment is not ready.
    """
    environment.check()
    (port,) = pick_ports(1)
    # The ONNX engine hands the file's path on as its name, so a model is found in the working directory alone.
    command = ["env", "--chdir", str(checkpoint), str(environment.python.parent / "infinity_emb"), "v2"]
    command += ["--model-id", "."]
    command += ["--served-model-name", _MODEL, "--engine", engine, "--device", "cpu", "--no-model-warmup"]
    command += ["--dtype", _DTYPES[precision], "--host", "127.0.0.1", "--port", str(port)]
    connection = JsonConnection(port)
    cache = {"HF_HOME": str(checkpoint.parent / "cache")}  # what the ONNX engine has optimized, by the model's id
    with serve(command, lambda: connection.get("/health") == 200, log, cache):
        yield InfinityCaller(connection)

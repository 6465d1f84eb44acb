"""A plain CrossEncoder of sentence-transformers in this process: what a script without a server does."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import torch
from lychee_server.execution.onnx_sessions import available_cpus
from sentence_transformers import CrossEncoder

from lychee_loadtest.compare.callers import Scores
from lychee_loadtest.compare.documents import Call

__all__ = ["TorchCaller"]


class TorchCaller:
    """Ranks in this process, one call at a time, each with all cores and the package's own batches.

    Args:
        checkpoint: The checkpoint's folder.
        precision: "fp32" or "bf16", that of weights and products.
    """

    def __init__(self, checkpoint: Path, precision: str) -> None:
        torch.set_num_threads(available_cpus())
        dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
        self._model = CrossEncoder(str(checkpoint), device="cpu", model_kwargs={"dtype": dtype})
        self._lock = threading.Lock()

    def rank(self, call: Call) -> Scores:
        """Score every document."""
        pairs = [(call.query, document) for document in call.documents]
        with self._lock, torch.inference_mode():
            found = self._model.predict(pairs, activation_fn=torch.nn.Identity(), convert_to_tensor=True)
        return np.asarray(found.float().numpy(), np.float64)

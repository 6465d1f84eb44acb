"""A model on Triton's Python backend that does what a file tells it, for tests that need a server with faults."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

POLL_INTERVAL_S = 0.01


class TritonPythonModel:
    """Answers a constant for every row.

    Its file says "block" (until it says something else), "fail", "nan" or "nan in the second row".
    """

    def initialize(self, args: dict[str, str]) -> None:
        """Read the configuration."""
        config = json.loads(args["model_config"])
        self._order = Path(config["parameters"]["order"]["string_value"])
        self._executed = self._order.with_suffix(".executed")
        self._row_shapes = {output["name"]: [int(size) for size in output["dims"]] for output in config["output"]}

    def execute(self, requests: list[Any]) -> list[Any]:
        """Log the requests, then do as told."""
        with self._executed.open("a") as log:
            log.writelines(f"{request.request_id()}\n" for request in requests)
        while (order := self._order.read_text()) == "block":
            time.sleep(POLL_INTERVAL_S)
        if order == "fail":
            return [pb_utils.InferenceResponse(error=pb_utils.TritonError("told to fail")) for _ in requests]
        lost = {"nan": slice(None), "nan in the second row": slice(1, 2)}.get(order, slice(0))
        return [self._answer(len(request.inputs()[0].as_numpy()), lost) for request in requests]

    def _answer(self, rows: int, lost: slice) -> Any:
        tensors = []
        for name, shape in self._row_shapes.items():
            values = np.full((rows, *shape), 0.5, np.float32)
            values[lost] = np.nan
            tensors.append(pb_utils.Tensor(name, values))
        return pb_utils.InferenceResponse(tensors)

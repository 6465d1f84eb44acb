"""Whether ONNX Runtime computes on a GPU here: prints why not, or nothing.

Runs as a process of its own (`python -m lychee_server.execution.gpu_probe`).
"""

import tempfile
from pathlib import Path

import numpy as np
import onnxruntime as ort

from lychee_server.execution.onnx_sessions import one_line, open_session

# y = x x for float32 [2, 2], as an ONNX file of IR version 10 and operator set 18.
MODEL = bytes.fromhex(
    "080a3a400a110a01780a017812017922064d61744d756c1201675a130a0178120e0a0c080112080a0208020a02080262"
    "130a0179120e0a0c080112080a0208020a02080242040a001012"
)


def probe() -> str:
    """Multiply two matrices on the first GPU, and return what is wrong; empty if the product is right."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    x = np.array([[1, 2], [3, 4]], np.float32)
    with tempfile.TemporaryDirectory(prefix="lychee-gpu-") as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(MODEL)
        try:
            (y,) = open_session(path, "cuda-fp32", options).run(None, {"x": x})
        except Exception as error:  # onnxruntime's own exceptions share no base class
            return one_line(error)
    return "" if np.allclose(y, x @ x) else f"the GPU computed {y.tolist()} as the square of {x.tolist()}"


if __name__ == "__main__":
    print(probe())

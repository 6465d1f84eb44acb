"""What executes an encoder decides in which precision it computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from lychee_loadtest import execution
from lychee_loadtest.compare.verdicts import precisions_of
from lychee_loadtest.execution import available_executions, open_session, precision_of


def test_whatever_is_not_float32_counts_as_bfloat16() -> None:
    coarse = [name for name in execution.EXECUTIONS if precision_of(name) == "bf16"]
    assert coarse == ["openvino-bf16", "cuda-tf32", "cuda-fp16", "cuda-bf16"]


def test_photos_are_as_coarse_as_the_coarser_encoder() -> None:
    assert precisions_of("fp32", {"text_encoder": "cpu-fp32", "vision_encoder": "openvino-bf16"}) == {
        "texts": "fp32",
        "photos": "bf16",
    }
    assert precisions_of("fp32", {"text_encoder": "openvino-bf16", "vision_encoder": "cpu-fp32"}) == {
        "texts": "bf16",
        "photos": "bf16",
    }
    assert set(precisions_of("s8", dict.fromkeys(execution.ENCODERS, "cpu-fp32")).values()) == {"rounded"}


@pytest.mark.parametrize("how", execution.EXECUTIONS)
def test_session_computes_products_in_the_precision_of_its_execution(how: str, tmp_path: Path) -> None:
    if how not in available_executions():
        pytest.skip("not on this machine")
    from lychee_loadtest.compare.ceiling import write_products

    path = tmp_path / "products.onnx"
    write_products(path, rows=64, width=32)
    x = np.random.default_rng(0).standard_normal((64, 32), np.float32)
    expected = x.astype(np.float64)
    for weight in onnx.load(path).graph.initializer:
        expected = expected @ onnx.numpy_helper.to_array(weight).astype(np.float64)
    (got,) = open_session(path, how).run(None, {"x": x})
    error = float(np.abs(got - expected).max() / expected.std())
    assert error < 1e-4 if precision_of(how) == "fp32" else 1e-3 < error < 0.3

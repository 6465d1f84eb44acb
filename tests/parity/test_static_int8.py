"""Static int8 of a CLIP model of the real transformers class: parity, and rows that do not depend on their batch."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from checkpoints.clip import build_clip
from lychee_client.repository import newest_version
from lychee_export import exporter
from lychee_export.contract.limits import Limits
from lychee_export.errors import ValidationError
from lychee_export.exporter import export_checkpoint
from lychee_export.onnx.static_int8 import StaticReport
from lychee_export.verification.tolerance import Tolerance
from lychee_server.execution.onnx_sessions import open_session
from onnxruntime.quantization import QuantType, quantize_dynamic

LIMITS = Limits(max_tokens=64, text_batch=8, image_batch=8)
CLIP_TOKENS = 500


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a tiny random CLIP checkpoint."""
    return build_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def repository(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Export it with 8-bit weights and activations."""
    folder = tmp_path_factory.mktemp("s8") / "models"
    report = export_checkpoint(str(checkpoint), folder, "s8", limits=LIMITS)
    assert report.manifest.precision == "s8"
    assert report.parity.max_score_error > 0
    assert report.parity.batch_invariance < 1e-6
    assert report.parity.logit_batch_invariance < 1e-5
    return folder


@pytest.mark.parametrize("execution", ["cpu-fp32", "openvino-fp32", "openvino-bf16"])
def test_embedding_does_not_depend_on_its_batch(repository: Path, execution: str, executions: tuple[str, ...]) -> None:
    if execution not in executions:
        pytest.skip(f"this machine has only {', '.join(executions)}")
    (path,) = (repository / "text_encoder").glob("*/model.onnx")
    session = open_session(path, execution, ort.SessionOptions())
    rng = np.random.default_rng(0)
    ids = rng.integers(0, CLIP_TOKENS, (7, 16))
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    together = session.run(None, inputs)[0]
    alone = [session.run(None, {name: value[row : row + 1] for name, value in inputs.items()})[0] for row in range(7)]
    np.testing.assert_allclose(together, np.concatenate(alone), atol=1e-6, rtol=0)


def test_a_server_may_choose_what_executes_it(repository: Path) -> None:
    assert 'key: "execution"' in (repository / "text_encoder" / "config.pbtxt").read_text()
    assert (newest_version(repository / "client_assets") / "reference_rows.npz").is_file()


def test_dynamic_quantization_fails_the_export(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its scales are taken over the batch, so that a score depends on its neighbours."""

    def quantize(source: Path, target: Path, _samples: object) -> StaticReport:
        model = onnx.load(source)
        del model.graph.value_info[:]  # the quantizer infers other shapes than torch noted
        quantize_dynamic(model, target, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul"])
        return StaticReport(1, {"product": 0.0}, ())

    loose = Tolerance(relative_rms=10.0, score_atol=1.0, logit_atol=100.0)
    monkeypatch.setattr(exporter, "TOLERANCES", dict.fromkeys(exporter.TOLERANCES, loose))
    monkeypatch.setattr(exporter, "write_static_int8", quantize)
    with pytest.raises(ValidationError, match=r"moves by .* alone instead of in a batch"):
        export_checkpoint(str(checkpoint), tmp_path / "models", "s8", limits=LIMITS)
    assert not list((tmp_path / "models").glob("*/config.pbtxt"))

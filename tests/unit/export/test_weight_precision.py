"""fp16, w8 and w4 of a toy encoder with weights, and weights in a file of their own."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from lychee_client.repository import newest_version
from lychee_export import exporter
from lychee_export.errors import CheckpointError
from lychee_export.exporter import export_checkpoint
from lychee_export.families import Checkpoint, Piece
from lychee_export.onnx.export import export_onnx
from lychee_export.onnx.model_file import model_files
from lychee_export.onnx.quantization import Precision, check_runtime, quantize_weights
from lychee_export.onnx.runtime import open_session
from torch import nn

Load = Callable[[Checkpoint], None]


def run(path: Path) -> np.ndarray:
    ids = np.arange(1, 33).reshape(2, 16)
    outputs: list[np.ndarray] = open_session(path).run(
        ["logits"], {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    )
    return outputs[0]


@pytest.mark.parametrize(
    ("precision", "element_type", "operator"),
    [("fp16", onnx.TensorProto.FLOAT16, "MatMul"), ("w8", onnx.TensorProto.UINT8, "MatMulNBits")],
)
def test_fewer_bits_keep_scores_and_the_wire(
    tmp_path: Path, weighted: Checkpoint, load: Load, precision: Precision, element_type: int, operator: str
) -> None:
    load(weighted)
    report = export_checkpoint("toy", tmp_path, precision)
    assert 0 < report.parity.max_logit_error < 2e-2
    assert report.manifest.precision == precision
    model = onnx.load(newest_version(tmp_path / "encoder") / "model.onnx")
    assert element_type in {tensor.data_type for tensor in model.graph.initializer}
    assert operator in {node.op_type for node in model.graph.node} or precision == "fp16"
    wire = {value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)}
    assert wire == {onnx.TensorProto.INT64, onnx.TensorProto.FLOAT}


def float32_shapes(path: Path) -> set[tuple[int, ...]]:
    weights = [one for one in onnx.load(path).graph.initializer if one.data_type == onnx.TensorProto.FLOAT]
    return {tuple(weight.dims) for weight in weights if weight.dims}


@pytest.mark.parametrize("cause", ["weight", "result"])
def test_a_layer_that_overflows_half_floats_stays_in_float32(
    tmp_path: Path, weighted: Checkpoint, load: Load, cause: str
) -> None:
    (piece,) = weighted.pieces
    with torch.no_grad():
        if cause == "weight":
            piece.module.inner.weight[0, 0] = 7e4
        else:
            piece.module.embedding.weight.mul_(1e3)
            piece.module.inner.weight.mul_(1e2)
    load(weighted)
    lines: list[str] = []
    export_checkpoint("toy", tmp_path, "fp16", lines.append)
    (line,) = (line for line in lines if "float32" in line)
    assert line.startswith("encoder: in float32 stay inner (")
    record = json.loads((tmp_path / "validation.json").read_text())
    assert list(record["float32_parts"]["encoder"]) == ["inner"]
    assert record["half_float_score_error"] < 5e-3
    assert float32_shapes(newest_version(tmp_path / "encoder") / "model.onnx") == {(64, 64), (64,)}


def test_heads_stay_in_float32(tmp_path: Path, weighted: Checkpoint, load: Load) -> None:
    """The encoder shares its last layer with the head, which is exported before the weights are halved."""
    (encoder,) = weighted.pieces
    signature = replace(encoder.signature, name="head", encoder=False)
    load(replace(weighted, pieces=(encoder, Piece(signature, encoder.module, encoder.sample_inputs))))
    export_checkpoint("toy", tmp_path, "fp16")
    types = {
        tensor.data_type for tensor in onnx.load(newest_version(tmp_path / "head") / "model.onnx").graph.initializer
    }
    assert onnx.TensorProto.FLOAT16 not in types


@pytest.mark.parametrize("precision", ["fp32", "w4"])
def test_many_weights_lie_in_a_file_of_their_own(tmp_path: Path, weighted: Checkpoint, precision: Precision) -> None:
    """ONNX Runtime reads the same numbers from two files as from one."""
    (piece,) = weighted.pieces
    single, split = tmp_path / "single" / "model.onnx", tmp_path / "split" / "model.onnx"
    for path, limit in ((single, 1 << 30), (split, 2000)):
        path.parent.mkdir()
        export_onnx(piece, path, external_data_bytes=limit)
        if precision == "w4":
            smaller = path.parent / "smaller" / "model.onnx"
            smaller.parent.mkdir()
            quantize_weights(path, smaller, precision, external_data_bytes=limit)
    if precision == "w4":
        single, split = (path.parent / "smaller" / "model.onnx" for path in (single, split))
    assert [path.name for path in model_files(single.parent)] == ["model.onnx"]
    assert [path.name for path in model_files(split.parent)] == ["model.onnx", "model.onnx.data"]
    assert split.stat().st_size < single.stat().st_size
    assert (run(split) == run(single)).all()


def test_weights_that_stay_as_they_are_come_along(tmp_path: Path, weighted: Checkpoint) -> None:
    """A model whose weights had a file of their own, and are few once quantized, is whole without that file."""
    source, target = tmp_path / "source" / "model.onnx", tmp_path / "target" / "model.onnx"
    for path in (source, target):
        path.parent.mkdir()
    export_onnx(weighted.pieces[0], source, external_data_bytes=2000)
    assert len(model_files(source.parent)) == 2
    quantize_weights(source, target, "w4", external_data_bytes=1 << 30)
    shutil.rmtree(source.parent)
    assert [path.name for path in model_files(target.parent)] == ["model.onnx"]
    assert np.isfinite(run(target)).all()


def test_export_is_reproducible_with_a_file_of_weights(tmp_path: Path, weighted: Checkpoint) -> None:
    contents = []
    for name in ("first", "second"):
        path = tmp_path / name / "model.onnx"
        path.parent.mkdir()
        export_onnx(weighted.pieces[0], path, external_data_bytes=2000)
        contents.append([file.read_bytes() for file in model_files(path.parent)])
    assert contents[0] == contents[1]


def test_weights_are_gone_before_models_are_validated(
    tmp_path: Path, weighted: Checkpoint, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(weighted)
    module: nn.Module = weighted.pieces[0].module
    seen = []
    real_validate = exporter.validate_values

    def validate(*arguments: object) -> object:
        seen.extend(weight.untyped_storage().nbytes() for weight in module.parameters())
        return real_validate(*arguments)

    monkeypatch.setattr(exporter, "validate_values", validate)
    export_checkpoint("toy", tmp_path, "w8")
    assert seen
    assert not any(seen)


def test_runtime_that_8_bits_need_is_said_and_an_older_one_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    check_runtime("w4", lines.append)
    check_runtime("w8", lines.append)
    assert lines == [
        f"precision w8 needs ONNX Runtime 1.22 or later where it is served, and {onnxruntime.__version__} is here"
    ]
    monkeypatch.setattr(onnxruntime, "__version__", "1.20.1")
    with pytest.raises(CheckpointError, match=r"1\.20\.1 is here: install a newer one, or choose --precision w4"):
        check_runtime("w8", lines.append)


def test_runtime_that_8_bits_need_is_written_beside_the_models(
    tmp_path: Path, weighted: Checkpoint, load: Load
) -> None:
    load(weighted)
    export_checkpoint("toy", tmp_path, "w8")
    assert json.loads((tmp_path / "validation.json").read_text())["least_onnxruntime"] == "1.22"

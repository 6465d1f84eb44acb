"""Which products static int8 quantizes, at which scales, and what it refuses."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from lychee_export.checkpoint.range_data import augment, bundled_data, read_data
from lychee_export.contract.signature import Tensors
from lychee_export.errors import CheckpointError, ValidationError
from lychee_export.exporter import export_checkpoint
from lychee_export.families import Checkpoint
from lychee_export.onnx.runtime import open_session
from lychee_export.onnx.static_int8 import quantize_static
from onnx import helper, numpy_helper
from PIL import Image

Load = Callable[[Checkpoint], None]

CHANNELS = 32


def save(
    path: Path, nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray], shape: list[str | int], outputs: int
) -> Path:
    """Write a float32 model from ``x`` to ``y``."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [None] * outputs)],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


@pytest.fixture
def token_model(tmp_path: Path) -> Path:
    """Write a model of token states: a product, the mean over tokens, and a projection."""
    rng = np.random.default_rng(0)
    weights = {name: rng.standard_normal((CHANNELS, CHANNELS)) for name in ("inner", "outer")}
    nodes = [
        helper.make_node("MatMul", ["x", "inner"], ["hidden"], name="inner_product"),
        helper.make_node("Tanh", ["hidden"], ["bounded"], name="bound"),
        helper.make_node("ReduceMean", ["bounded", "axes"], ["pooled"], name="pool", keepdims=0),
        helper.make_node("MatMul", ["pooled", "outer"], ["y"], name="projection"),
    ]
    path = save(tmp_path / "model.onnx", nodes, weights, ["batch_size", "sequence_length", CHANNELS], 2)
    model = onnx.load(path)
    model.graph.initializer.append(numpy_helper.from_array(np.array([1]), "axes"))
    onnx.save(model, path)
    return path


def token_samples(outlier: float = 1.0) -> list[Tensors]:
    rng = np.random.default_rng(1)
    gain = np.ones(CHANNELS)
    gain[3] = outlier
    return [{"x": (rng.standard_normal((1, 5 + index, CHANNELS)) * gain).astype(np.float32)} for index in range(30)]


def test_what_follows_the_pooling_stays_in_float32(token_model: Path) -> None:
    model, report = quantize_static(token_model, token_samples())
    assert report.kept == ("projection",)
    assert set(report.errors) == {"inner_product"}
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    assert "inner" not in types
    assert types["outer"] == onnx.TensorProto.FLOAT
    assert types["inner_product_weight_quantized"] == onnx.TensorProto.INT8
    onnx.checker.check_model(model)


def test_rows_do_not_depend_on_their_batch(tmp_path: Path, token_model: Path) -> None:
    quantized = tmp_path / "quantized.onnx"
    onnx.save(quantize_static(token_model, token_samples())[0], quantized)
    rows = np.concatenate([token_samples()[0]["x"], 20 * token_samples()[0]["x"]])  # the second is out of range
    session, original = open_session(quantized), open_session(token_model)
    together = session.run(None, {"x": rows})[0]
    np.testing.assert_array_equal(together[:1], session.run(None, {"x": rows[:1]})[0])
    exact = original.run(None, {"x": rows[:1]})[0]
    assert 0 < np.abs(together[:1] - exact).max() < 0.05 * np.abs(exact).max()


def test_weights_leave_room_for_sums_of_two_products_in_16_bits(token_model: Path) -> None:
    model, _ = quantize_static(token_model, token_samples())
    (weight,) = (
        numpy_helper.to_array(tensor) for tensor in model.graph.initializer if tensor.name.endswith("weight_quantized")
    )
    assert np.abs(weight.astype(int)).max() == 63
    assert 2 * 255 * 63 < 1 << 15


def test_channel_with_large_values_is_smoothed(token_model: Path) -> None:
    _, plain_report = quantize_static(token_model, token_samples())
    model, report = quantize_static(token_model, token_samples(outlier=60))
    assert "Mul" in {node.op_type for node in model.graph.node}
    assert report.errors["inner_product"] < 0.03
    assert plain_report.errors["inner_product"] < 0.03


def test_product_that_loses_too_much_stays_in_float32(token_model: Path) -> None:
    with pytest.raises(ValidationError, match=r"each of the 2 products by more than 1e-06"):
        quantize_static(token_model, token_samples(), max_error=1e-6)


def test_graph_without_products_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "model.onnx", [helper.make_node("Tanh", ["x"], ["y"])], {}, ["batch_size", 4], 2)
    with pytest.raises(ValidationError, match="nothing to quantize"):
        quantize_static(path, token_samples())


def test_convolution_that_reads_the_pixels_stays_in_float32(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    weights = {"first": rng.standard_normal((8, 3, 3, 3)), "second": rng.standard_normal((8, 1, 3, 3))}
    nodes = [
        helper.make_node("Conv", ["x", "first"], ["hidden"], name="stem", strides=[2, 2], pads=[0, 0, 1, 1]),
        helper.make_node("Relu", ["hidden"], ["positive"], name="relu"),
        helper.make_node("Conv", ["positive", "second"], ["y"], name="depthwise", group=8, pads=[1, 1, 1, 1]),
    ]
    path = save(tmp_path / "model.onnx", nodes, weights, ["batch_size", 3, 16, 16], 4)
    samples: list[Tensors] = [{"x": rng.random((1, 3, 16, 16)).astype(np.float32)} for _ in range(8)]
    model, report = quantize_static(path, samples)
    assert report.kept == ("stem",)
    assert report.errors["depthwise"] < 0.03
    exact = open_session(path).run(None, samples[0])[0]
    onnx.save(model, tmp_path / "quantized.onnx")
    np.testing.assert_allclose(
        open_session(tmp_path / "quantized.onnx").run(None, samples[0])[0],
        exact,
        atol=0.05 * np.abs(exact).max(),
    )


def test_quantization_is_reproducible(token_model: Path) -> None:
    first, second = (quantize_static(token_model, token_samples())[0] for _ in range(2))
    assert first.SerializeToString(deterministic=True) == second.SerializeToString(deterministic=True)


def test_family_without_static_int8_is_named(tmp_path: Path, weighted: Checkpoint, load: Load) -> None:
    load(weighted)
    with pytest.raises(CheckpointError, match=r"s8 is for dual encoders .*; toy is of the family toy.*w8"):
        export_checkpoint("toy", tmp_path / "models", "s8")
    assert not (tmp_path / "models").exists()


def test_options_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"s8 is for CPUs .* got target cuda"):
        export_checkpoint("lychee-mini", tmp_path, "s8", target="cuda")
    with pytest.raises(CheckpointError, match="for precision s8 alone, the precision is w8"):
        export_checkpoint("lychee-mini", tmp_path, "w8", range_data=tmp_path)


def test_bundled_texts_have_several_lengths_and_two_languages() -> None:
    texts = bundled_data().texts
    assert len(texts) > 200
    assert min(map(len, texts)) < 5
    assert max(map(len, texts)) > 300
    assert any("咖啡" in text for text in texts)
    assert texts == bundled_data().texts


def test_calibration_folder_is_read(tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("one\n\n二\n", encoding="utf-8")
    Image.new("RGB", (30, 20), "red").save(tmp_path / "photo.png")
    data = read_data(tmp_path)
    assert data.texts == ("one", "二")
    assert [image.size for image in data.images] == [(30, 20)]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("notes.md", b"text", "holds no text and no image"),
        ("photo.png", b"no image", "cannot read the range image"),
        ("texts.txt", b"\xff\xfe\xff", "cannot read the range texts"),
    ],
)
def test_unusable_calibration_folder_is_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        read_data(tmp_path)


def test_missing_calibration_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is no folder"):
        read_data(tmp_path / "absent")


def test_crops_follow_the_images_themselves() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 12, 10), dtype=np.uint8)
    made = list(augment(images, 5))
    np.testing.assert_array_equal(made[:2], images)
    assert {one.shape for one in made} == {(3, 12, 10)}
    assert len({one.tobytes() for one in made}) == 5

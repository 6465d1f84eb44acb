import pytest
from lychee_export.contract.signature import Axis, ModelSignature, TensorSpec

IDS = TensorSpec("input_ids", "int64", (Axis("sequence_length", (64, 512)),))
SCORE = TensorSpec("relevance_score", "float32", (1,))


def test_variable_axis_is_minus_one_for_triton() -> None:
    assert IDS.triton_dims == (-1,)
    assert SCORE.triton_dims == (1,)


def test_tensor_without_elements_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one element"):
        TensorSpec("pixel_values", "uint8", (3, 0, 224))


def test_output_named_like_an_input_is_refused() -> None:
    with pytest.raises(ValueError, match="unique"):
        ModelSignature("model", (IDS,), (IDS,), 8)


def test_ensemble_larger_than_a_step_is_refused() -> None:
    step = ModelSignature("step", (IDS,), (SCORE,), 4)
    with pytest.raises(ValueError, match="may not exceed"):
        ModelSignature("ensemble", (IDS,), (SCORE,), 8, steps=(step,))
    assert ModelSignature("ensemble", (IDS,), (SCORE,), 4, steps=(step,)).steps == (step,)


def test_negative_batch_size_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 0, got -1"):
        ModelSignature("model", (IDS,), (SCORE,), -1)

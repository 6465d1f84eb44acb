"""A row that no model can read, among good ones, in the exported files alone: no server checks anything before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from checkpoints import BUILDERS
from checkpoints.exports import LIMITS
from lychee_export.contract.signature import Axis, Tensors, TensorSpec
from lychee_export.families import Piece, load_checkpoint
from lychee_export.onnx.runtime import open_session

ROWS, BAD = 5, 2
BUNDLED = "lychee-mini"
FAMILIES = [BUNDLED, *sorted(BUILDERS)]


def find(repository: Path, name: str) -> Path:
    (path,) = (repository / name).glob("*/model.onnx")
    return path


def spoil(spec: TensorSpec) -> Iterator[tuple[str, object, bool]]:
    """Yield faults of one row's input: words, value, and whether it is in every place of the row."""
    if spec.dtype == "float32":
        yield from (("NaN", np.nan, False), ("infinity", np.inf, False), ("-infinity", -np.inf, False))
    elif spec.maximum is not None:
        yield from ((f"{value}", value, False) for value in (-1, spec.maximum + 1, 10**12, -(2**63)))
    if spec.name == "attention_mask":
        yield "zeros alone", 0, True


def with_fault(spec: TensorSpec, inputs: Tensors, value: object, everywhere: bool) -> Tensors:
    spoiled = inputs[spec.name].copy()
    row = spoiled[BAD].reshape(-1)
    row[: len(row) if everywhere else 1] = value
    return inputs | {spec.name: spoiled}


def run(session: ort.InferenceSession, inputs: Tensors) -> list[np.ndarray]:
    return session.run(None, {node.name: inputs[node.name] for node in session.get_inputs()})


@pytest.fixture(params=FAMILIES)
def files(
    request: pytest.FixtureRequest, exported: Callable[[str], Path], checkpoint_folder: Callable[[str], Path]
) -> list[tuple[Piece, Path]]:
    """Return the models of a family and their files."""
    if request.param == BUNDLED:
        checkpoint, repository = load_checkpoint(BUNDLED), request.getfixturevalue("repository")
    else:
        checkpoint = load_checkpoint(str(checkpoint_folder(request.param)), LIMITS)
        repository = exported(request.param)
    return [(piece, find(repository, piece.signature.name)) for piece in checkpoint.pieces]


def test_bad_row_is_nan_and_its_neighbours_are_the_same_to_the_bit(files: list[tuple[Piece, Path]]) -> None:
    faults = 0
    for piece, path in files:
        session = open_session(path)
        inputs = piece.sample_inputs(np.random.default_rng(4), ROWS)
        good = run(session, inputs)
        assert all(np.isfinite(values).all() for values in good)
        for spec in piece.signature.inputs:
            for words, value, everywhere in spoil(spec):
                outputs = run(session, with_fault(spec, inputs, value, everywhere))
                label = f"{piece.signature.name}: {spec.name} with {words}"
                for values, before in zip(outputs, good, strict=True):
                    assert np.isnan(values[BAD]).all(), label
                    np.testing.assert_array_equal(np.delete(values, BAD, 0), np.delete(before, BAD, 0), err_msg=label)
                faults += 1
    assert faults >= 9


def test_lengths_that_differ_or_are_too_long_fail(files: list[tuple[Piece, Path]]) -> None:
    piece, path = next((piece, path) for piece, path in files if piece.signature.name == "text_encoder")
    inputs = piece.sample_inputs(np.random.default_rng(4), ROWS)
    session = open_session(path)
    for length in (1, inputs["input_ids"].shape[1] - 1):
        with pytest.raises(Exception, match=r"(?i)dimension|shape|broadcast"):
            run(session, inputs | {"attention_mask": inputs["attention_mask"][:, :length]})
    axis = piece.signature.inputs[0].shape[0]
    longest = axis.maximum if isinstance(axis, Axis) else axis
    tokens = {name: np.ones((ROWS, longest + 8), np.int64) for name in ("input_ids", "attention_mask")}
    with pytest.raises(Exception, match=r"(?i)dimension|shape|broadcast"):
        run(session, inputs | tokens)


def test_no_graph_asks_for_the_place_of_a_largest_value(files: list[tuple[Piece, Path]]) -> None:
    """Runtimes resolve ties in ArgMax and TopK in their own ways, and some lack them for int64."""
    for _, path in files:
        operators = {node.op_type for node in onnx.load(path, load_external_data=False).graph.node}
        assert operators.isdisjoint({"ArgMax", "ArgMin", "TopK"}), path

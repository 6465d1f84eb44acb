"""The files that are served against the reference values of the checkpoint."""

import shutil
from pathlib import Path

import lychee_export
import numpy as np
import onnxruntime as ort
import pytest
from lychee_export.exporter import export_checkpoint
from lychee_export.families import Checkpoint
from lychee_export.onnx.quantization import Precision, quantize_weights
from lychee_export.onnx.runtime import open_session
from lychee_export.verification.expected import compute_expected
from lychee_export.verification.tolerance import check_output
from lychee_export.verification.validation import TOLERANCES, validate_values
from lychee_server.execution.onnx_sessions import EXECUTIONS
from lychee_server.execution.onnx_sessions import open_session as open_executed
from tokenizers import Tokenizer

BFLOAT16_COSINE = 0.998
BFLOAT16_SCORE_ATOL = 0.02
CHECKPOINT = Path(lychee_export.__file__).parent / "checkpoint" / "bundled" / "lychee_mini"


def find(repository: Path, name: str) -> Path:
    (path,) = (repository / name).glob("*/model.onnx")
    return path


@pytest.fixture(params=EXECUTIONS)
def execution(request: pytest.FixtureRequest, executions: tuple[str, ...]) -> str:
    """Return each way in which a server may execute a model, where this machine has it."""
    name = str(request.param)
    if name not in executions:
        pytest.skip(f"this machine has only {', '.join(executions)}")
    return name


def assert_same_embeddings(execution: str, embeddings: np.ndarray, expected: np.ndarray) -> None:
    if EXECUTIONS[execution].precision == "fp32":
        check_output(execution, embeddings, expected, TOLERANCES["fp32"])
    else:
        cosines = (embeddings * expected).sum(axis=1)
        assert cosines.min() > BFLOAT16_COSINE
        assert cosines.min() < 1 - 1e-6, "that was float32"


def test_text_encoder_gives_the_reference_embeddings(repository: Path, execution: str) -> None:
    reference = np.load(CHECKPOINT / "reference.npz")
    session = open_executed(find(repository, "text_encoder"), execution, ort.SessionOptions())
    tokenizer = Tokenizer.from_file(str(CHECKPOINT / "tokenizer.json"))
    tokenizer.enable_padding(pad_id=1, length=32)
    encodings = tokenizer.encode_batch([str(text) for text in reference["texts"]])
    (embeddings,) = session.run(
        ["text_embedding"],
        {
            "input_ids": np.array([encoding.ids for encoding in encodings]),
            "attention_mask": np.array([encoding.attention_mask for encoding in encodings]),
        },
    )
    assert_same_embeddings(execution, embeddings, reference["text_embedding"])


def test_vision_encoder_and_head_give_the_reference_scores(repository: Path, execution: str) -> None:
    reference = np.load(CHECKPOINT / "reference.npz")
    session = open_executed(find(repository, "vision_encoder"), execution, ort.SessionOptions())
    (images,) = session.run(["image_embedding"], {"pixel_values": reference["pixel_values"]})
    assert_same_embeddings(execution, images, reference["image_embedding"])
    head = open_session(find(repository, "scoring_heads"))
    queries = reference["text_embedding"][[text.startswith("query: ") for text in reference["texts"]]]
    documents = np.tile(images, (len(queries), 1))
    scores, logits = head.run(
        ["image_relevance_score", "image_logits"],
        {
            "query_embedding": np.repeat(queries, len(images), axis=0),
            "image_embedding": documents,
            "text_embedding": documents,
        },
    )
    atol = TOLERANCES["fp32"].score_atol if EXECUTIONS[execution].precision == "fp32" else BFLOAT16_SCORE_ATOL
    scores_by_query = scores.reshape(len(queries), len(images))
    np.testing.assert_allclose(scores_by_query, reference["image_score"], atol=atol, rtol=0)
    np.testing.assert_allclose(scores, 1 / (1 + np.exp(-logits.astype(np.float64))), atol=1e-6, rtol=0)


def test_logits_tell_apart_what_the_score_rounds_to_one(repository: Path) -> None:
    query = np.eye(1, 384, dtype=np.float32)
    similarities = np.array([[0.9], [0.95], [1.0]], np.float32)
    document = similarities * query
    scores, logits = open_session(find(repository, "scoring_heads")).run(
        ["text_relevance_score", "text_logits"],
        {"query_embedding": np.repeat(query, 3, axis=0), "text_embedding": document, "image_embedding": document},
    )
    assert scores.ravel().tolist() == [1.0, 1.0, 1.0]
    assert logits.ravel() == pytest.approx([18.17, 19.715, 21.26], abs=1e-4)


def sum_bytes(model: Path) -> int:
    """Return the size of an ONNX file with the weights beside it."""
    return sum(path.stat().st_size for path in model.parent.glob(f"{model.name}*"))


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["w8", "w4"])
def test_quantized_weights_keep_scores_order_and_batch_invariance(
    tmp_path: Path, repository: Path, checkpoint: Checkpoint, precision: Precision
) -> None:
    paths, sizes = {}, {}
    for piece in checkpoint.pieces:
        name = piece.signature.name
        original = paths[name] = find(repository, name)
        if piece.signature.encoder:
            paths[name] = tmp_path / f"{name}.onnx"
            # A copy: a server that serves the files links to them, and onnx refuses weights with several links.
            copied = shutil.copytree(original.parent, tmp_path / f"{name}_float32")
            quantize_weights(copied / original.name, paths[name], precision)
        sizes[name] = sum_bytes(paths[name]) / sum_bytes(original)
    expected = compute_expected(checkpoint, checkpoint.make_reference())
    parity = validate_values(expected, lambda signature: open_session(paths[signature.name]), TOLERANCES[precision])
    assert sizes["text_encoder"] < 0.62
    assert parity.max_abs_error > 0
    assert parity.batch_invariance < 1e-6
    assert parity.logit_batch_invariance < 1e-5


@pytest.mark.slow
def test_half_floats_keep_scores_order_and_batch_invariance(tmp_path: Path) -> None:
    report = export_checkpoint("lychee-mini", tmp_path, "fp16")
    parity = report.parity
    assert 0 < parity.max_score_error < 2e-3
    assert parity.batch_invariance < 1e-4
    assert report.golden_error < 2e-3
    assert report.sizes_bytes["text_encoder"] < 80e6

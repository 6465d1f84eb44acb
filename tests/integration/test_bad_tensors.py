"""Tensors that no client of ours would send, straight to Triton: a clear error, and the server lives."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from lychee_client import LycheeClient
from lychee_server import TritonServer
from tritonclient import grpc
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

pytestmark = pytest.mark.triton

Send = Callable[..., Any]

IDS = np.full((1, 16), 7)
MASK = np.ones((1, 16), np.int64)
QUERY = np.full((1, 384), 384**-0.5, np.float32)


@pytest.fixture(scope="module")
def send(server: TritonServer) -> Iterator[Send]:
    """Send named arrays to a model."""
    with grpc.InferenceServerClient(server.grpc_url) as triton:

        def infer(model: str, **arrays: np.ndarray) -> grpc.InferResult:
            inputs = []
            for name, array in arrays.items():
                tensor = grpc.InferInput(name, array.shape, np_to_triton_dtype(array.dtype))
                tensor.set_data_from_numpy(array)
                inputs.append(tensor)
            return triton.infer(model, inputs)

        yield infer


@pytest.fixture(autouse=True)
def server_lives(client: LycheeClient) -> Iterator[None]:
    """Score a pair after each test."""
    yield
    assert client.score("一只猫", "小猫") > client.score("一只猫", "a rocket")


def refused(send: Send, model: str, **arrays: np.ndarray) -> str:
    with pytest.raises(InferenceServerException) as caught:
        send(model, **arrays)
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"
    return str(caught.value.message())


def test_good_tensors_pass(send: Send) -> None:
    result = send("rerank_text", query_embedding=QUERY, input_ids=IDS, attention_mask=MASK)
    assert result.as_numpy("relevance_score").shape == (1, 1)


def test_nan_is_refused_by_name(send: Send) -> None:
    broken = QUERY.copy()
    broken[0, 3] = np.nan
    message = refused(send, "rerank_text", query_embedding=broken, input_ids=IDS, attention_mask=MASK)
    assert "query_embedding" in message
    assert "NaN" in message


def test_row_of_nothing_but_nan_has_no_score_and_costs_no_other_row(send: Send) -> None:
    good = send("rerank_text", query_embedding=QUERY, input_ids=IDS, attention_mask=MASK).as_numpy("logits")
    lost = np.full_like(QUERY, np.nan)
    tensors = {"input_ids": np.repeat(IDS, 2, 0), "attention_mask": np.repeat(MASK, 2, 0)}
    result = send("rerank_text", query_embedding=np.concatenate([lost, QUERY]), **tensors)
    for name in ("relevance_score", "logits"):
        assert np.isnan(result.as_numpy(name)[:, 0]).tolist() == [True, False]
    np.testing.assert_allclose(result.as_numpy("logits")[1], good[0], atol=1e-3)


def test_wrong_tensor_name_is_refused(send: Send) -> None:
    message = refused(send, "rerank_text", query_embedding=QUERY, ids=IDS, attention_mask=MASK)
    assert "ids" in message


def test_batch_over_the_limit_is_refused(send: Send) -> None:
    message = refused(
        send,
        "rerank_text",
        query_embedding=np.repeat(QUERY, 33, 0),
        input_ids=np.repeat(IDS, 33, 0),
        attention_mask=np.repeat(MASK, 33, 0),
    )
    assert "32" in message


@pytest.mark.parametrize("token", [-1, 42_075, 10**12])
def test_token_that_does_not_exist_is_refused(send: Send, token: int) -> None:
    ids = IDS.copy()
    ids[0, 5] = token
    message = refused(send, "text_encoder", input_ids=ids, attention_mask=MASK)
    assert "input_ids" in message
    assert "42074" in message


def test_lengths_that_differ_are_refused(send: Send) -> None:
    message = refused(send, "text_encoder", input_ids=IDS, attention_mask=MASK[:, :8])
    assert "sequence_length" in message


@pytest.mark.parametrize("model", ["text_encoder", "rerank_text"])
def test_text_without_tokens_is_refused(send: Send, model: str) -> None:
    query = {"query_embedding": QUERY} if model == "rerank_text" else {}
    message = refused(send, model, **query, input_ids=IDS[:, :0], attention_mask=MASK[:, :0])
    assert "attention_mask" in message


@pytest.mark.parametrize("value", [-1, 2])
def test_mask_that_is_neither_0_nor_1_is_refused(send: Send, value: int) -> None:
    mask = MASK.copy()
    mask[0, 5] = value
    assert "attention_mask" in refused(send, "text_encoder", input_ids=IDS, attention_mask=mask)


def test_sequence_over_the_models_limit_is_refused(send: Send) -> None:
    ids = np.full((1, 600), 7)
    message = refused(send, "text_encoder", input_ids=ids, attention_mask=np.ones_like(ids))
    assert "sequence_length is 600" in message
    assert "512" in message


def test_wrong_image_size_is_refused(send: Send) -> None:
    message = refused(send, "vision_encoder", pixel_values=np.zeros((1, 3, 225, 224), np.uint8))
    assert "224" in message


def test_wrong_dtype_is_refused(send: Send) -> None:
    message = refused(send, "vision_encoder", pixel_values=np.zeros((1, 3, 224, 224), np.float32))
    assert "pixel_values" in message

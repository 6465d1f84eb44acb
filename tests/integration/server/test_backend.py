"""The onnxruntime backend inside a real Triton."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpc
from lychee_server import TritonServer
from lychee_server.status import ServedModelState, read_models
from tritonclient.utils import InferenceServerException

pytestmark = pytest.mark.triton


def infer(client: Any, model: str, name: str, array: np.ndarray, kind: str = "INT64") -> np.ndarray:
    tensor = grpc.InferInput(name, array.shape, kind)
    tensor.set_data_from_numpy(array)
    output: np.ndarray = client.infer(model, [tensor], client_timeout=30).as_numpy("y")
    return output


def look_up(client: Any, *ids: int, model: str = "lookup") -> float:
    return float(infer(client, model, "ids", np.array([ids])).item())


def read_model(server: TritonServer, name: str) -> ServedModelState:
    models = read_models(server.host, server.http_port, server.metrics_port, server.key)
    return next(model for model in models if model.name == name)


def count(client: Any, model: str) -> tuple[int, int]:
    """Return how many requests a model has answered, and in how many runs."""
    (stats,) = client.get_inference_statistics(model).model_stats
    return stats.inference_count, stats.execution_count


def test_requests_are_batched_across_clients(client: Any) -> None:
    inferences, executions = count(client, "lookup")
    with ThreadPoolExecutor(8) as pool:
        scores = list(pool.map(lambda n: look_up(client, n % 4, 3), range(8)))
    assert scores == [n % 4 + 3 for n in range(8)]
    deadline = time.monotonic() + 30  # Triton counts a request after it has answered it
    while (more := count(client, "lookup"))[0] < inferences + 8 and time.monotonic() < deadline:
        time.sleep(0.02)
    more_inferences, more_executions = more
    assert more_inferences - inferences == 8
    assert more_executions - executions < 8


def test_one_request_may_have_several_rows(client: Any) -> None:
    np.testing.assert_array_equal(infer(client, "lookup", "ids", np.array([[1, 2], [3, 3], [0, 0]])), [[3], [6], [0]])


def test_a_bad_request_in_a_batch_fails_alone(client: Any) -> None:
    def attempt(id_: int) -> float | InferenceServerException:
        try:
            return look_up(client, id_, 1)
        except InferenceServerException as error:
            return error

    with ThreadPoolExecutor(4) as pool:
        first, bad, third, fourth = pool.map(attempt, [0, 9, 2, 3])
    assert (first, third, fourth) == (1, 3, 4)
    assert isinstance(bad, InferenceServerException)
    assert bad.status() == "StatusCode.INVALID_ARGUMENT"
    assert "out of data bounds" in str(bad)


@pytest.mark.parametrize("id_", [-1, 4])
def test_the_maximum_guards_what_openvino_would_let_pass(client: Any, id_: int) -> None:
    with pytest.raises(InferenceServerException, match="expected 0 to 3") as caught:
        look_up(client, id_, model="accelerated")
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"


def test_a_wrong_tensor_name_is_refused(client: Any) -> None:
    with pytest.raises(InferenceServerException, match="unexpected inference input 'wrong'"):
        infer(client, "lookup", "wrong", np.array([[1]]))


def test_a_batch_over_the_limit_is_refused(client: Any) -> None:
    with pytest.raises(InferenceServerException, match="batch-size must be <= 8"):
        infer(client, "lookup", "ids", np.zeros((9, 1), dtype=np.int64))


def test_the_accelerator_computes_the_same(client: Any, server: TritonServer) -> None:
    assert look_up(client, 1, 2, 3, model="accelerated") == look_up(client, 1, 2, 3) == 6
    accelerated, plain = read_model(server, "accelerated"), read_model(server, "lookup")
    assert (accelerated.provider, accelerated.precision) == ("OpenVINOExecutionProvider", "fp32")
    assert (plain.provider, plain.precision) == ("CPUExecutionProvider", "fp32")


@pytest.mark.parametrize(("model", "shape"), [("strings", (2, 1)), ("strings", (1, 2)), ("unbatched", (2,))])
def test_strings_pass_with_and_without_batching(client: Any, model: str, shape: tuple[int, ...]) -> None:
    texts = np.array(["荔枝".encode(), b""], dtype=np.object_).reshape(shape)
    np.testing.assert_array_equal(infer(client, model, "x", texts, "BYTES"), texts)


def test_a_model_without_inputs_answers_with_its_constant(client: Any) -> None:
    for _ in range(2):
        assert client.infer("constant", []).as_numpy("y")[0].decode() == "荔枝" * 100_000

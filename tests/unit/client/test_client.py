"""The client on the fake transport: results, order, errors, requests."""

import itertools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from fakes.dual_encoder import MANIFEST, FakeTransport
from lychee_client import (
    ConfigurationError,
    ConnectionFailedError,
    ContractError,
    DeadlineExceededError,
    Image,
    ImageText,
    InferenceError,
    InvalidInputError,
    LycheeClient,
    LycheeError,
    ModelNotReadyError,
    RequestRejectedError,
    ServerOverloadedError,
    Text,
)
from lychee_client._pipelines.lanes import LANES
from lychee_client.transports.base import InferRequest, InferResponse, Request, TransportError

RED, GREEN, BLUE = ((220, 10, 10), (10, 220, 10), (10, 10, 220))


def plain(colour: tuple[int, int, int], size: tuple[int, int] = (300, 260)) -> Image:
    return Image.from_pil(PIL.Image.new("RGB", size, colour))


def sent_to(transport: FakeTransport, model_name: str) -> list[InferRequest]:
    requests = [request for request in transport.requests if isinstance(request, InferRequest)]
    return [request for request in requests if request.model_name == model_name]


def is_for(request: Request, model_name: str) -> bool:
    return isinstance(request, InferRequest) and request.model_name == model_name


def answer_scores(scores: np.ndarray, logits: np.ndarray | None = None) -> Callable[[Request], InferResponse | None]:
    """Return an intercept that answers these scores to every request of texts."""

    def answer(request: Request) -> InferResponse | None:
        if not is_for(request, "scoring_head_text"):
            return None
        return InferResponse({"relevance_score": scores, "logits": np.zeros_like(scores) if logits is None else logits})

    return answer


def fail_at(model_name: str, error: Exception) -> Callable[[Request], None]:
    """Return an intercept that fails every request to one model."""

    def fail(request: Request) -> None:
        if is_for(request, model_name):
            raise error

    return fail


def test_rerank_puts_the_equal_text_first_and_keeps_indexes(client: LycheeClient) -> None:
    response = client.rerank("aaaaaaaaaa", ["zzzzzzzzzz", "qqqqqq qqqq qqqq qqqqqq", "aaaaaaaaaa", "aaaaazzzzz"])
    scores = [result.relevance_score for result in response.results]
    assert response.results[0].index == 2
    assert sorted(result.index for result in response.results) == [0, 1, 2, 3]
    assert scores == sorted(scores, reverse=True)
    assert response.errors == ()


def test_rerank_gives_each_document_the_score_it_has_alone(client: LycheeClient) -> None:
    documents = [letter * length for letter, length in zip("abcdefghijk", itertools.cycle((1, 9, 30)), strict=False)]
    documents += [plain(RED), ImageText(plain(BLUE), "blue"), Text("text"), plain(GREEN)]
    together = {result.index: result.relevance_score for result in client.rerank("red", documents).results}
    assert together == {index: client.score("red", document) for index, document in enumerate(documents)}
    assert len(set(together.values())) == len(documents)


def test_rerank_keeps_input_order_on_ties(client: LycheeClient) -> None:
    response = client.rerank("same", ["other", *["same"] * 6])
    assert [result.index for result in response.results] == [1, 2, 3, 4, 5, 6, 0]


def test_rerank_reports_modalities(client: LycheeClient) -> None:
    response = client.rerank("q", ["text", Text("text"), plain(RED), ImageText(plain(RED), "red")])
    assert {result.index: result.modality for result in response.results} == {
        0: "text",
        1: "text",
        2: "image",
        3: "image_text",
    }


@pytest.mark.parametrize(("top_n", "expected"), [(None, 4), (1, 1), (3, 3), (99, 4)])
def test_top_n(client: LycheeClient, top_n: int | None, expected: int) -> None:
    everything = client.rerank("q", ["a", "b", "c", "d"]).results
    assert client.rerank("q", ["a", "b", "c", "d"], top_n=top_n).results == everything[:expected]


def test_score_threshold_is_inclusive(client: LycheeClient) -> None:
    everything = client.rerank("q", ["a", "b", "c"]).results
    second = everything[1].relevance_score
    assert client.rerank("q", ["a", "b", "c"], score_threshold=second).results == everything[:2]


@pytest.mark.parametrize("options", [{"top_n": 0}, {"score_threshold": 1.1}, {"policy": "lenient"}, {"timeout_s": 0}])
def test_bad_options_are_refused_before_any_request(
    client: LycheeClient, transport: FakeTransport, options: dict[str, object]
) -> None:
    with pytest.raises(ConfigurationError):
        client.rerank("q", ["a"], **options)
    assert transport.requests == []


def test_policy_of_the_call_beats_the_clients(transport: FakeTransport) -> None:
    scores = np.array([[0.75], [0.55], [0.4], [0.39]], np.float32)
    with LycheeClient(transport=FakeTransport(answer_scores(scores)), policy="exploratory") as client:
        own = client.rerank("q", ["a", "b", "c", "d"])
        strict = client.rerank("q", ["a", "b", "c", "d"], policy="strict")
    assert [result.decision for result in own.results] == ["accept", "accept", "review", "reject"]
    assert [result.decision for result in strict.results] == ["accept", "reject", "reject", "reject"]


def test_empty_list_gives_an_empty_response_without_a_request(client: LycheeClient, transport: FakeTransport) -> None:
    response = client.rerank("q", [])
    assert (response.results, response.errors) == ((), ())
    assert transport.requests == []


@pytest.mark.parametrize("query", ["", " \n", Text(""), ImageText(plain(RED), " "), None, 7, "\ud800"])
def test_unusable_query_is_refused_before_any_request(
    client: LycheeClient, transport: FakeTransport, query: object
) -> None:
    with pytest.raises(InvalidInputError, match="query") as caught:
        client.rerank(query, ["a"])
    assert caught.value.index is None
    assert transport.requests == []


def test_missing_query_image_is_refused(client: LycheeClient, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="nothing"):
        client.rerank(Image.from_path(tmp_path / "nothing.png"), ["a"])


@pytest.mark.parametrize("documents", ["one string", b"bytes"])
def test_documents_must_be_a_list(client: LycheeClient, documents: object) -> None:
    with pytest.raises(InvalidInputError, match="list"):
        client.rerank("q", documents)


def test_broken_documents_become_errors_and_the_others_are_ranked(client: LycheeClient, tmp_path: Path) -> None:
    truncated = tmp_path / "cut.png"
    plain_png = tmp_path / "whole.png"
    PIL.Image.effect_noise((300, 300), 90).save(plain_png)
    truncated.write_bytes(plain_png.read_bytes()[:2000])
    documents = [
        "good",
        "",
        " \t\n",
        Image.from_path(tmp_path / "missing.jpg"),
        Image.from_bytes(b"not an image"),
        Image.from_path(truncated),
        None,
        tmp_path,
        ImageText(plain(RED), ""),
        ImageText(Image.from_bytes(b""), "good text"),
        ImageText("path.png", "good text"),
        "\udcff",
        Image.from_path(plain_png),
    ]
    response = client.rerank("good", documents)
    assert [result.index for result in response.results if result.modality == "text"] == [0]
    assert sorted(result.index for result in response.results) == [0, 12]
    assert [failed.index for failed in response.errors] == list(range(1, 12))
    for failed in response.errors:
        assert isinstance(failed.error, InvalidInputError)
        assert failed.error.index == failed.index
        assert failed.message == str(failed.error)


def test_score_raises_what_is_wrong_with_the_document(client: LycheeClient) -> None:
    with pytest.raises(InvalidInputError, match="empty"):
        client.score("q", "")


def test_text_past_the_limit_is_truncated_and_says_so(client: LycheeClient, transport: FakeTransport) -> None:
    limit = MANIFEST["text"]["max_tokens"] - len("<passage: >")  # <s> and </s> take one each
    response = client.rerank("q", ["a" * limit, "a" * (limit + 1), ImageText(plain(RED), "a" * 500)])
    assert {result.index: result.truncated for result in response.results} == {0: False, 1: True, 2: True}
    for request in transport.requests:
        if isinstance(request, InferRequest) and "input_ids" in request.inputs:
            assert request.inputs["input_ids"].shape[1] <= MANIFEST["text"]["max_tokens"]


def test_query_of_both_modalities_is_the_normalized_sum(client: LycheeClient, transport: FakeTransport) -> None:
    client.rerank("red", ["x"])
    client.rerank(plain(RED), ["x"])
    client.rerank(ImageText(plain(RED), "red"), ["x"])
    text, image, both = (request.inputs["query_embedding"] for request in sent_to(transport, "scoring_head_text"))
    expected = (text + image) / np.linalg.norm(text + image)
    np.testing.assert_allclose(both, expected, rtol=0, atol=1e-6)
    assert both.dtype == np.float32


def test_requests_follow_the_contract(client: LycheeClient, transport: FakeTransport) -> None:
    texts = [letter * 5 for letter in "abcdef"] + ["b" * 30]
    client.rerank("query", [*texts, plain(RED), plain(GREEN), ImageText(plain(BLUE), "blue")])
    shapes = [request.inputs["input_ids"].shape for request in sent_to(transport, "text_encoder")]
    assert shapes == [(1, 16), (4, 16), (3, 16), (1, 64)]  # the query, then by bucket, at most max_batch_size rows
    pixels = [request.inputs["pixel_values"].shape for request in sent_to(transport, "vision_encoder")]
    assert pixels == [(1, 3, 224, 224)] * 3
    heads = {name: sent_to(transport, f"scoring_head_{name}") for name in ("text", "image", "image_text")}
    rows = {name: [request.rows for request in requests] for name, requests in heads.items()}
    assert rows == {"text": [4, 3], "image": [2], "image_text": [1]}
    (pair,) = heads["image_text"]
    assert pair.outputs == ("relevance_score", "logits")
    assert {name: tensor.shape for name, tensor in pair.inputs.items()} == {
        "query_embedding": (1, MANIFEST["embedding_dim"]),
        "text_embedding": (1, MANIFEST["embedding_dim"]),
        "image_embedding": (1, MANIFEST["embedding_dim"]),
    }


def test_more_images_than_may_be_prepared_ahead_or_be_in_flight(client: LycheeClient) -> None:
    documents = [
        plain((2 * value, 0, 255 - 2 * value), (40, 30))
        for value in range(LANES["interactive"].max_rows_in_flight + 20)
    ]
    response = client.rerank(plain((0, 0, 255)), documents)
    assert [result.index for result in response.results] == list(range(len(documents)))


def test_refused_batch_is_sent_again_row_by_row() -> None:
    poison = ord("~")

    def refuse(request: Request) -> None:
        if (
            isinstance(request, InferRequest)
            and request.model_name == "text_encoder"
            and (request.inputs["input_ids"] == poison_id).any()
        ):
            raise RequestRejectedError("refused", model_name="text_encoder", status="INVALID_ARGUMENT")

    transport = FakeTransport(refuse)
    with LycheeClient(transport=transport, embedding_cache=None) as client:
        poison_id = -1
        client.rerank("q", [chr(poison)])
        ids = sent_to(transport, "text_encoder")[0].inputs["input_ids"][1]  # after the query's
        poison_id = int(ids[len("passage: ") + 1])
        response = client.rerank("q", ["a", "b~", "c", "d", "e", "~"])
    assert sorted(result.index for result in response.results) == [0, 2, 3, 4]
    assert [(failed.index, type(failed.error)) for failed in response.errors] == [
        (1, RequestRejectedError),
        (5, RequestRejectedError),
    ]


def test_image_that_the_model_refuses_is_one_error() -> None:
    def fail(request: Request) -> None:
        if (
            isinstance(request, InferRequest)
            and request.model_name == "vision_encoder"
            and request.inputs["pixel_values"].mean() > 100
        ):
            raise RequestRejectedError("failed", model_name="vision_encoder", status="INVALID_ARGUMENT")

    with LycheeClient(transport=FakeTransport(fail)) as client:
        response = client.rerank("q", [plain(RED), plain((250, 250, 250)), plain(BLUE)])
    assert sorted(result.index for result in response.results) == [0, 2]
    assert [failed.index for failed in response.errors] == [1]


@pytest.mark.parametrize("kind", [InferenceError, RequestRejectedError])
@pytest.mark.parametrize("model_name", ["vision_encoder", "scoring_head_image", "scoring_head_image_text"])
def test_model_that_answers_nothing_is_no_documents_fault(kind: type[LycheeError], model_name: str) -> None:
    transport = FakeTransport(fail_at(model_name, kind("its process has died", model_name=model_name)))
    documents = ["a", plain(RED), ImageText(plain(BLUE), "blue"), Image.from_bytes(b"damaged")]
    with LycheeClient(transport=transport) as client:
        with pytest.raises(kind, match="has died"):
            client.rerank("q", documents)
        assert [result.index for result in client.rerank("q", ["a"]).results] == [0]  # texts need other models


def test_short_memory_of_a_batch_is_survived_row_by_row() -> None:
    def fail(request: Request) -> None:
        if is_for(request, "text_encoder") and isinstance(request, InferRequest) and request.rows > 1:
            raise InferenceError("short of memory", model_name="text_encoder")

    with LycheeClient(transport=FakeTransport(fail)) as client:
        response = client.rerank("q", ["a", "b", "c"])
    assert (len(response.results), response.errors) == (3, ())


@pytest.mark.parametrize("failures", [1, 2, 3])
def test_failing_model_is_asked_again(failures: int) -> None:
    left = [failures]

    def fail(request: Request) -> None:
        if is_for(request, "vision_encoder") and left[0]:
            left[0] -= 1
            raise TransportError(InferenceError, "INTERNAL", "bad allocation", "id")

    with LycheeClient(transport=FakeTransport(fail), max_retries=2) as client:
        if failures > 2:
            with pytest.raises(InferenceError, match="bad allocation"):
                client.rerank("q", [plain(RED)])
        response = client.rerank("q", [plain(RED), plain(GREEN)])
    assert (len(response.results), response.errors) == (2, ())  # and nothing that failed was kept


@pytest.mark.parametrize(
    "error",
    [
        InferenceError("short of memory"),
        ConnectionFailedError("gone"),
        DeadlineExceededError("late", timeout_s=1),
        ServerOverloadedError("full"),
        ModelNotReadyError("loading"),
    ],
)
@pytest.mark.parametrize("model_name", ["client_assets", "text_encoder", "scoring_head_text"])
def test_trouble_of_the_server_ends_the_call(error: LycheeError, model_name: str) -> None:
    with LycheeClient(transport=FakeTransport(fail_at(model_name, error))) as client, pytest.raises(type(error)):
        client.rerank("q", ["a", "b"])


@pytest.mark.parametrize("error", [RequestRejectedError("refused"), InferenceError("failed")])
def test_query_that_the_server_refuses_ends_the_call(error: LycheeError) -> None:
    with LycheeClient(transport=FakeTransport(fail_at("text_encoder", error))) as client, pytest.raises(type(error)):
        client.rerank("q", ["a"])


@pytest.mark.parametrize(
    "scores",
    [
        np.array([[0.5]], np.float32),
        np.array([0.5, 0.5], np.float32),
        np.array([[0.5], [0.5]], np.float64),
        None,
    ],
)
@pytest.mark.parametrize("output", ["relevance_score", "logits"])
def test_answers_outside_the_contract_are_refused(scores: np.ndarray | None, output: str) -> None:
    good = np.array([[0.5], [0.5]], np.float32)

    def answer(request: Request) -> InferResponse | None:
        if not is_for(request, "scoring_head_text"):
            return None
        outputs = {"relevance_score": good, "logits": good} | {output: scores}
        return InferResponse({name: tensor for name, tensor in outputs.items() if tensor is not None})

    with LycheeClient(transport=FakeTransport(answer)) as client, pytest.raises(ContractError, match="lychee doctor"):
        client.rerank("q", ["a", "b"])


def test_ranking_an_image_again_decodes_nothing(client: LycheeClient, tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    PIL.Image.new("RGB", (30, 40), RED).save(path)
    image = Image.from_path(path)
    first = client.score("q", image)
    path.unlink()
    assert client.score("q", image) == first


def test_one_image_object_may_stand_for_many_documents(client: LycheeClient) -> None:
    image = plain(RED)
    response = client.rerank("q", [image] * 20)
    assert [result.index for result in response.results] == list(range(20))


def test_constructor_does_no_network(transport: FakeTransport) -> None:
    transport.live = False
    LycheeClient(transport=transport).close()
    assert transport.requests == []


def test_manifest_is_fetched_once(client: LycheeClient, transport: FakeTransport) -> None:
    assert client.manifest().model_id == "fake"
    client.rerank("q", ["a"])
    outputs = [request.outputs for request in sent_to(transport, "client_assets")]
    assert outputs == [("manifest",), ("tokenizer",)]


def test_an_executor_of_the_caller_does_the_work_and_outlives_the_client() -> None:
    names: list[str] = []

    with ThreadPoolExecutor(1, "mine", initializer=lambda: names.append(threading.current_thread().name)) as executor:
        for _ in range(2):
            with LycheeClient(transport=FakeTransport(), executor=executor) as client:
                assert client.rerank("red", [plain(RED)]).errors == ()
        assert executor.submit(threading.active_count).result() > 0
    assert names == ["mine_0"]


def test_closed_client_says_so(transport: FakeTransport) -> None:
    client = LycheeClient(transport=transport)
    client.close()
    with pytest.raises(ConnectionFailedError, match="closed"):
        client.rerank("q", ["a"])


def test_wait_until_ready_returns_when_the_server_is_there(client: LycheeClient, transport: FakeTransport) -> None:
    transport.live = False
    starting = threading.Timer(0.2, setattr, (transport, "live", True))
    starting.start()
    client.wait_until_ready(30)
    starting.join()
    assert transport.live


def test_wait_until_ready_names_what_is_missing(client: LycheeClient, transport: FakeTransport) -> None:
    transport.live = False
    with pytest.raises(DeadlineExceededError, match="client_assets") as caught:
        client.wait_until_ready(0.05)
    assert caught.value.timeout_s == 0.05


def test_call_that_has_no_time_left_raises_deadline_exceeded() -> None:
    gate = threading.Event()

    def hang(request: Request) -> None:
        gate.wait(0.1)

    with LycheeClient(transport=FakeTransport(hang)) as client, pytest.raises(DeadlineExceededError):
        client.rerank("q", ["a"], timeout_s=0.01)


def test_timings_are_filled(client: LycheeClient) -> None:
    timings = client.rerank("q", ["a", plain(RED)]).timings
    assert timings.total_ms >= max(timings.preprocess_ms, timings.encode_query_ms, timings.score_documents_ms) > 0

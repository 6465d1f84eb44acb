"""One call, one model: what happens to a call while the server is replaced by one with another model."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fakes.dual_encoder import FakeTransport
from fakes.replaced_server import ReplacedServer, make_server
from lychee_client import (
    AsyncLycheeClient,
    Image,
    ImageText,
    LycheeClient,
    ModelNotReadyError,
    RelevantSpans,
    ServerOverloadedError,
)
from lychee_client._current_model import MOST_MODELS
from lychee_client.transports.base import Ambiguity, ControlRequest, InferRequest, Request, TransportError

QUERY = "a red fox"
PHOTO = Image.from_numpy(np.full((32, 32, 3), 90, np.uint8))
DOCUMENTS = ["a fox", "the sea at night", PHOTO, ImageText(PHOTO, "a grey wall"), *(f"text {n}" for n in range(9))]
OLD, NEW = 101, 202


def rank_async(transport: Any, arm: Callable[[], None], **options: Any) -> Any:
    async def run() -> Any:
        async with AsyncLycheeClient(transport=transport, embedding_cache=None) as client:
            await client.manifest()
            arm()
            return await client.rerank(QUERY, DOCUMENTS, **options)

    return asyncio.run(run())


def rank(transport: Any, arm: Callable[[], None] = lambda: None, **options: Any) -> Any:
    with LycheeClient(transport=transport, embedding_cache=None) as client:
        client.manifest()
        arm()
        return client.rerank(QUERY, DOCUMENTS, **options)


def scores(response: Any) -> dict[int, float]:
    assert not response.errors
    return {result.index: result.relevance_score for result in response.results}


@pytest.fixture(scope="module")
def expected() -> dict[int, dict[int, float]]:
    """Return what each model says, by its weights."""
    made = {weights: scores(rank(make_server(None, weights))) for weights in (0, 5)}
    assert all(abs(made[0][index] - made[5][index]) > 1e-3 for index in made[0])
    return made


def test_every_request_after_the_manifest_names_the_version() -> None:
    server = make_server(OLD)
    with LycheeClient(transport=server) as client:
        client.rerank(QUERY, DOCUMENTS, relevant_spans=RelevantSpans())
        for name in client.manifest().asked_models:
            client.probe(name)
    models = [request for request in server.requests if isinstance(request, InferRequest)]
    manifests, others = models[:1], models[1:]
    assert [(request.outputs, request.model_version) for request in manifests] == [(("manifest",), "")]
    assert {request.model_version for request in others} == {str(OLD)}
    assert {request.model_name for request in others} >= {*client_models(), "client_assets"}
    configs = [each for each in server.requests if isinstance(each, ControlRequest) and each.action == "config"]
    assert [request.model_version for request in configs] == [str(OLD)] * 2


def client_models() -> set[str]:
    return {"text_encoder", "vision_encoder", *(f"scoring_head_{kind}" for kind in ("text", "image", "image_text"))}


def test_an_older_export_is_asked_for_no_version() -> None:
    server = make_server(None)
    rank(server)
    assert {each.model_version for each in server.requests if isinstance(each, InferRequest | ControlRequest)} == {""}


@pytest.mark.parametrize("call", [rank, rank_async])
@pytest.mark.parametrize("after", range(12))
def test_a_call_is_answered_by_one_model_whenever_the_server_is_replaced(
    after: int, call: Callable[..., Any], expected: dict[int, dict[int, float]]
) -> None:
    server = ReplacedServer(make_server(OLD), make_server(NEW, weights=5), after=after)
    response = call(server, server.arm)
    weights = 5 if {place for place, _ in server.sent} == {0, 1} or after == 0 else 0
    assert scores(response) == expected[weights]
    assert response.model.artifacts["text_encoder/model.onnx"] == f"{weights:064x}"


def test_the_query_is_encoded_again() -> None:
    server = ReplacedServer(make_server(OLD), make_server(NEW, weights=5), after=5)
    rank(server, server.arm)
    at_old = [name for place, name in server.models if place == 0]
    at_new = [name for place, name in server.models if place == 1]
    assert "text_encoder" in at_old
    answered = [name for name in at_new if name != "client_assets"]
    assert answered.count("text_encoder") >= 4  # the query's own, and those of documents by their length
    assert "scoring_head_image" in answered


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        # Some servers call an unknown version a bad argument, which a document may be to blame for, too.
        (Ambiguity.REJECTED_OR_NOT_READY, "400"),
        # Triton has UNAVAILABLE for a version that it had and has unloaded.
        (Ambiguity.OVERLOADED_OR_GONE, "503"),
    ],
)
def test_a_version_that_is_not_there_is_no_documents_error_and_no_overload(kind: Ambiguity, status: str) -> None:
    new = make_server(NEW, weights=5)
    server = ReplacedServer(make_server(OLD), new, after=5)
    real = new.send

    def send(request: Request, timeout_s: float | None) -> Any:
        answer = real(request, timeout_s)
        failure = answer.exception()
        if isinstance(failure, TransportError):
            failure.kind, failure.status = kind, status
        return answer

    new.send = send  # type: ignore[method-assign]
    assert len(scores(rank(server, server.arm))) == len(DOCUMENTS)


def test_going_back_to_an_older_export_is_a_change_too(expected: dict[int, dict[int, float]]) -> None:
    server = ReplacedServer(make_server(NEW, weights=5), make_server(None), after=4)
    assert scores(rank(server, server.arm)) == expected[0]


def test_the_error_stands_where_the_server_has_the_same_model_still() -> None:
    def refuse(request: Request) -> None:
        if isinstance(request, InferRequest) and request.model_name == "scoring_head_text":
            raise TransportError(Ambiguity.REJECTED_OR_NOT_READY, "404", "not loaded", "1")

    manifest = {"version": OLD}
    server = FakeTransport(refuse, manifest)
    with LycheeClient(transport=server, max_retries=0) as client, pytest.raises(ModelNotReadyError, match="not loaded"):
        client.rerank(QUERY, ["a"])
    asked = [each.outputs for each in server.requests if isinstance(each, InferRequest) and not each.inputs]
    assert asked.count(("manifest",)) == 1


def test_an_overload_stays_one() -> None:
    def refuse(request: Request) -> None:
        if isinstance(request, InferRequest) and request.model_name == "scoring_head_text":
            raise TransportError(Ambiguity.OVERLOADED_OR_GONE, "503", "full", "1")

    server = FakeTransport(refuse, {"version": OLD})
    with LycheeClient(transport=server, max_retries=0) as client, pytest.raises(ServerOverloadedError):
        client.rerank(QUERY, ["a"])


def test_a_server_that_never_settles_ends_the_call() -> None:
    servers = [make_server(number) for number in range(100, 200)]
    server = ReplacedServer(*servers, after=6)
    with LycheeClient(transport=server, max_retries=0, embedding_cache=None) as client:
        client.manifest()
        server.arm()
        with pytest.raises(ModelNotReadyError):
            client.rerank(QUERY, DOCUMENTS)
    queries = [name for _, name in server.models if name == "client_assets"]
    assert 0 < len(queries) <= 2 * MOST_MODELS


def test_the_next_call_of_a_client_uses_the_new_model(expected: dict[int, dict[int, float]]) -> None:
    server = ReplacedServer(make_server(OLD), make_server(NEW, weights=5))
    with LycheeClient(transport=server) as client:
        assert scores(client.rerank(QUERY, DOCUMENTS)) == expected[0]
        server.arm()
        assert client.manifest().version == OLD
        client.wait_until_ready()
        assert client.manifest().version == NEW
        assert scores(client.rerank(QUERY, DOCUMENTS)) == expected[5]  # the cache has the old model's embeddings


def test_golden_pairs_and_probes_follow_the_server() -> None:
    server = ReplacedServer(make_server(OLD), make_server(NEW, weights=5))
    with LycheeClient(transport=server) as client:
        client.manifest()
        server.arm()
        client.probe("text_encoder")
        assert client.manifest().version == NEW
        assert client.check_golden_pairs().passed

"""What products that are no Python send and read: each gets a score for every document, and the right one."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from .conftest import API_KEY, Post
from .running_gateway import RunningGateway
from .senders import QUERY, TEXTS, Sender, read_answer, read_senders, replace_text

pytestmark = pytest.mark.triton

TOLERANCE = 1e-6
SENDERS = read_senders()
EMPTY = 0  # the place of a text without a character, as Weaviate sends it for an object without the property


@pytest.fixture(params=SENDERS, ids=str)
def sender(request: pytest.FixtureRequest) -> Sender:
    found: Sender = request.param
    return found


def send(gateway: RunningGateway, sender: Sender, body: Any) -> Any:
    """Send a body as the sender does; return the answer."""
    headers = {name: value.replace("KEY", API_KEY) for name, value in sender.headers.items()}
    headers.setdefault("authorization", f"Bearer {API_KEY}")
    with httpx.Client(base_url=gateway.url, timeout=120, trust_env=False) as http:
        response = http.post(sender.path, json=body, headers=headers)
    assert response.status_code == 200, response.text
    return response.json()


def native_scores(post: Post, documents: list[Any], name: str) -> list[float]:
    """Return the documents' scores in the gateway's own answer."""
    answer = post("/v1/rerank", {"query": QUERY, "documents": documents}).json()
    results = sorted(answer["results"], key=lambda result: result["index"])
    return [result[name] for result in results]


def native_name(sender: Sender) -> str:
    return "logit" if sender.reads.score == "logit" else "relevance_score"


def test_sender_reads_the_score_of_every_document(gateway: RunningGateway, post: Post, sender: Sender) -> None:
    scores = read_answer(sender.reads, send(gateway, sender, sender.body), len(TEXTS))
    assert scores == pytest.approx(native_scores(post, list(sender.same_as), native_name(sender)), abs=TOLERANCE)


def test_sender_reads_a_score_for_a_document_that_cannot_be_ranked(
    gateway: RunningGateway, post: Post, sender: Sender
) -> None:
    body = replace_text(sender.body, TEXTS[EMPTY], "")
    scores = read_answer(sender.reads, send(gateway, sender, body), len(TEXTS))
    assert min(scores) == scores[EMPTY]
    assert scores.count(scores[EMPTY]) == 1
    del scores[EMPTY]
    others = [document for place, document in enumerate(sender.same_as) if place != EMPTY]
    assert scores == pytest.approx(native_scores(post, others, native_name(sender)), abs=TOLERANCE)


@pytest.mark.parametrize("sender", [sender for sender in SENDERS if sender.ignored], ids=str)
def test_sender_is_told_what_is_ignored(gateway: RunningGateway, sender: Sender) -> None:
    warnings = " ".join(send(gateway, sender, sender.body)["warnings"])
    assert all(name in warnings for name in sender.ignored), warnings


def test_dify_takes_the_gateway_for_a_reranker_of_text_embeddings_inference(gateway: RunningGateway) -> None:
    # https://github.com/langgenius/dify-official-plugins, models/huggingface_tei/models/helper.py
    status, content = gateway.get("/info", {"authorization": f"Bearer {API_KEY}"})
    assert status == 200
    info = httpx.Response(status, text=content).json()
    assert next(iter(info["model_type"])) == "reranker"
    assert isinstance(info["max_input_length"], int)

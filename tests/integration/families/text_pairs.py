"""What holds for every reranker of texts that is served: the scores of transformers, and images refused one by one."""

from __future__ import annotations

import base64
import contextlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import httpx
import pytest
from checkpoints.inputs import TEXTS, make_images, read_labelled_texts
from integration.gateway.running_gateway import run_gateway
from lychee_client import Image, InvalidInputError, LycheeClient
from lychee_server import TritonServer
from torch import Tensor

SCORE_ATOL = 1e-4
QUERIES = ("the yellow cat", "一只猫")


class Judge(Protocol):
    """What transformers computes."""

    def compute_logits(self, pairs: Sequence[tuple[str, str]]) -> Tensor:
        """Score pairs: float32, (num_pairs,)."""


def url_of(triton: TritonServer, protocol: str) -> str:
    """Return the URL of a server: "grpc" or "http"."""
    return triton.grpc_url if protocol == "grpc" else f"http://{triton.http_url}"


def assert_texts_score_as_in_transformers_and_images_are_refused(url: str, reference: Judge) -> None:
    """Score texts in batches of 1 to 7, each time with an image among them, by the SDK."""
    picture = Image.from_pil(make_images()[1])
    with LycheeClient(url) as client:
        assert client.check_golden_pairs().max_abs_error < SCORE_ATOL
        for query in QUERIES:
            for count in range(1, 8):
                documents = TEXTS[-count:]
                response = client.rerank(query, [*documents, picture])
                logits = reference.compute_logits([(query, document) for document in documents])
                assert len(response.results) == count
                for result in response.results:
                    assert result.logit == pytest.approx(float(logits[result.index]), abs=SCORE_ATOL)
                    expected = float(logits[result.index].sigmoid())
                    assert result.relevance_score == pytest.approx(expected, abs=SCORE_ATOL)
                (error,) = response.errors
                assert error.index == count
                assert "reads only texts as a document. Images are read by lychee-rerank-mm" in str(error.error)
        with pytest.raises(InvalidInputError, match="reads only texts as a query"):
            client.rerank(picture, list(TEXTS))


def assert_labelled_queries_rank_as_in_transformers(url: str, reference: Judge) -> None:
    """Rank the documents of every labelled query by the SDK."""
    with LycheeClient(url) as client:
        for query, labelled in read_labelled_texts().items():
            documents = [text for text, _ in labelled]
            logits = reference.compute_logits([(query, text) for text in documents]).tolist()
            results = client.rerank(query, documents).results
            assert len(results) == len(documents)
            expected = [logits[result.index] for result in results]
            assert [result.logit for result in results] == pytest.approx(expected, abs=SCORE_ATOL)


def assert_rest_gives_the_scores_of_transformers_and_refuses_an_image_alone(
    triton: TritonServer, reference: Judge, folder: Path
) -> None:
    """Rank texts and an image by the gateway, and texts as callers of TEI and of Infinity send them."""
    stream = io.BytesIO()
    make_images()[1].save(stream, "PNG")
    image = {"image": "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()}
    texts, logits = list(TEXTS), reference.compute_logits([(QUERIES[0], text) for text in TEXTS])
    with contextlib.ExitStack() as stack:
        gateway = stack.enter_context(run_gateway(folder, triton.grpc_url, "--no-web"))
        gateway.wait_for("/health/ready", 200)
        http = stack.enter_context(httpx.Client(base_url=gateway.url, timeout=60, trust_env=False))
        answer = http.post("/v1/rerank", json={"query": QUERIES[0], "documents": [*texts, image]})
        for raw_scores, expected in ((False, logits.sigmoid().tolist()), (True, logits.tolist())):
            sent = {"query": QUERIES[0], "raw_scores": raw_scores}
            tei = http.post("/rerank", json=sent | {"texts": texts, "return_text": True}).json()
            assert_ranking([(row["index"], row["score"], row["text"]) for row in tei], texts, expected)
            more = {"model": "any", "documents": texts, "return_documents": True}
            infinity = http.post("/infinity/rerank", json=sent | more).json()["results"]
            rows = [(row["index"], row["relevance_score"], row["document"]) for row in infinity]
            assert_ranking(rows, texts, expected)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    ranked = [result for result in body["results"] if result["decision"] != "error"]
    seen = {result["index"]: result["relevance_score"] for result in ranked}
    assert seen == pytest.approx(dict(enumerate(logits.sigmoid().tolist())), abs=SCORE_ATOL)
    assert "Images are read by lychee-rerank-mm" in str(body["errors"])


def assert_ranking(rows: Sequence[tuple[int, float, str]], texts: Sequence[str], expected: Sequence[float]) -> None:
    """Compare the rows of an answer, index, score and text, with what they should be."""
    order = sorted(range(len(texts)), key=lambda index: -expected[index])
    assert [index for index, _, _ in rows] == order
    assert [text for _, _, text in rows] == [texts[index] for index in order]
    assert [score for _, score, _ in rows] == pytest.approx([expected[index] for index in order], abs=SCORE_ATOL)

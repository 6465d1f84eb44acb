"""Text cross-encoders end to end: checkpoint folder, export, Triton, client and REST; scores as in the original."""

import base64
import contextlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from checkpoints.exports import LIMITS
from checkpoints.inputs import TEXTS, make_images, read_labelled_texts
from checkpoints.pairs_reference import PairModel, load_pair_model
from integration.gateway.running_gateway import run_gateway
from lychee_client import Image, InvalidInputError, LycheeClient
from lychee_server import TritonServer

pytestmark = pytest.mark.triton

SCORE_ATOL = 1e-4
QUERIES = ("the yellow cat", "一只猫")


@pytest.fixture(
    scope="module",
    params=[
        "bert_reranker",
        "xlm_roberta_reranker",
        "modernbert_reranker",
        "jina_v2_reranker",
        "gte_multilingual_reranker",
        "deberta_reranker",
    ],
)
def name(request: pytest.FixtureRequest) -> str:
    """Return each checkpoint's name in turn."""
    return str(request.param)


@pytest.fixture(scope="module")
def reference(checkpoint_folder: Callable[[str], Path], name: str) -> PairModel:
    """Load the checkpoint with transformers, or as its authors' code does."""
    return load_pair_model(checkpoint_folder(name), LIMITS.max_tokens)


@pytest.fixture(scope="module")
def triton(
    exported: Callable[[str], Path], name: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TritonServer]:
    """Serve the export in float32, whatever the machine has."""
    ports = {"http_port": 0, "grpc_port": 0, "metrics_port": 0}
    log_path = tmp_path_factory.mktemp("triton") / "triton.log"
    with TritonServer(exported(name), config_name="cpu", **ports, log_path=log_path) as server:
        yield server


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_texts_score_as_in_transformers_and_images_are_refused(
    triton: TritonServer, reference: PairModel, protocol: str
) -> None:
    url = triton.grpc_url if protocol == "grpc" else f"http://{triton.http_url}"
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


def test_labelled_queries_rank_as_in_transformers(triton: TritonServer, reference: PairModel) -> None:
    with LycheeClient(triton.grpc_url) as client:
        for query, labelled in read_labelled_texts().items():
            documents = [text for text, _ in labelled]
            logits = reference.compute_logits([(query, text) for text in documents]).tolist()
            results = client.rerank(query, documents).results
            assert [result.logit for result in results] == pytest.approx(
                [logits[r.index] for r in results], abs=SCORE_ATOL
            )
            assert len(results) == len(documents)


def test_rest_gives_the_scores_of_transformers_and_refuses_an_image_alone(
    triton: TritonServer, reference: PairModel, tmp_path: Path
) -> None:
    stream = io.BytesIO()
    make_images()[1].save(stream, "PNG")
    image = {"image": "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()}
    with contextlib.ExitStack() as stack:
        gateway = stack.enter_context(run_gateway(tmp_path, triton.grpc_url, "--no-web"))
        gateway.wait_for("/health/ready", 200)
        http = stack.enter_context(httpx.Client(base_url=gateway.url, timeout=60, trust_env=False))
        answer = http.post("/v1/rerank", json={"query": QUERIES[0], "documents": [*TEXTS, image]})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    expected = reference.score([(QUERIES[0], document) for document in TEXTS])
    ranked = [result for result in body["results"] if result["decision"] != "error"]
    seen = {result["index"]: result["relevance_score"] for result in ranked}
    assert seen == pytest.approx({index: float(score) for index, score in enumerate(expected)}, abs=SCORE_ATOL)
    assert "Images are read by lychee-rerank-mm" in str(body["errors"])


@pytest.mark.parametrize("raw_scores", [False, True])
def test_a_caller_of_tei_or_infinity_gets_the_scores_of_transformers(
    triton: TritonServer, reference: PairModel, tmp_path: Path, raw_scores: bool
) -> None:
    texts, options = list(TEXTS), {"raw_scores": raw_scores}
    logits = reference.compute_logits([(QUERIES[0], text) for text in texts])
    expected = (logits if raw_scores else logits.sigmoid()).flatten().tolist()
    with contextlib.ExitStack() as stack:
        gateway = stack.enter_context(run_gateway(tmp_path, triton.grpc_url, "--no-web"))
        gateway.wait_for("/health/ready", 200)
        http = stack.enter_context(httpx.Client(base_url=gateway.url, timeout=60, trust_env=False))
        tei = http.post("/rerank", json={"query": QUERIES[0], "texts": texts, "return_text": True, **options}).json()
        sent = {"model": "any", "query": QUERIES[0], "documents": texts, "return_documents": True, **options}
        infinity = http.post("/infinity/rerank", json=sent).json()["results"]
    order = sorted(range(len(texts)), key=lambda index: -expected[index])
    for ranking, score, text in ((tei, "score", "text"), (infinity, "relevance_score", "document")):
        assert [result["index"] for result in ranking] == order
        assert [result[text] for result in ranking] == [texts[index] for index in order]
        assert [result[score] for result in ranking] == pytest.approx([expected[i] for i in order], abs=SCORE_ATOL)

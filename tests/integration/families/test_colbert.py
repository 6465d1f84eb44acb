"""ColBERT end to end: checkpoint folder, export, Triton, client and REST; scores as the authors' code has them."""

import base64
import contextlib
import io
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pytest
from checkpoints.colbert_reference import ColbertModel, load_colbert
from checkpoints.inputs import TEXTS, make_images, read_labelled_texts
from integration.gateway.running_gateway import run_gateway
from lychee_client import Image, InvalidInputError, LycheeClient
from lychee_client.memory_cache import MemoryEmbeddingCache
from lychee_client.triton_key import KEY_VARIABLE
from lychee_server import TritonServer
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException

pytestmark = pytest.mark.triton

SCORE_ATOL = 1e-4
LOGIT_ATOL = 5e-4
QUERIES = ("the yellow cat", "一只猫")
LONG_TEXT = "the unbelievable, uncharacteristic cats sleep; 小猫喜欢晒太阳! " * 20


@pytest.fixture(scope="module", params=["colbert", "answerai_colbert", "jina_colbert", "modern_colbert", "lateon"])
def name(request: pytest.FixtureRequest) -> str:
    """Return each checkpoint's name in turn."""
    return str(request.param)


@pytest.fixture(scope="module")
def reference(checkpoint_folder: Callable[[str], Path], name: str) -> ColbertModel:
    """Load the checkpoint as its authors do."""
    return load_colbert(checkpoint_folder(name))


def count_rows(triton: TritonServer, model: str) -> int:
    """Return how many rows a model has computed so far."""
    with contextlib.closing(InferenceServerClient(triton.grpc_url)) as raw:
        (statistics,) = raw.get_inference_statistics(model).model_stats
    return int(statistics.inference_count)


@pytest.mark.parametrize("protocol", ["grpc", "http"])
@pytest.mark.parametrize("shared_memory", [False, True])
def test_texts_score_as_the_authors_have_it_and_images_are_refused(
    triton: TritonServer,
    reference: ColbertModel,
    protocol: str,
    shared_memory: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, triton.key)
    url = triton.grpc_url if protocol == "grpc" else f"http://{triton.http_url}"
    picture = Image.from_pil(make_images()[1])
    with LycheeClient(url, shared_memory=shared_memory) as client:
        assert client.check_golden_pairs().max_abs_error < SCORE_ATOL
        for query in QUERIES:
            for count in range(1, 8):
                documents = [*TEXTS, LONG_TEXT][-count:]
                response = client.rerank(query, [*documents, picture])
                pairs = [(query, document) for document in documents]
                scores, logits = reference.score(pairs), reference.compute_logits(pairs)
                assert len(response.results) == count
                for result in response.results:
                    assert result.relevance_score == pytest.approx(float(scores[result.index]), abs=SCORE_ATOL)
                    assert result.logit == pytest.approx(float(logits[result.index]), rel=SCORE_ATOL, abs=LOGIT_ATOL)
                    length = reference.count_tokens(documents[result.index])
                    assert result.truncated == (length > reference.settings["doc_maxlen"])
                (error,) = response.errors
                assert error.index == count
                assert "reads only texts as a document. Images are read by lychee-rerank-mm" in str(error.error)
        with pytest.raises(InvalidInputError, match="reads only texts as a query"):
            client.rerank(picture, list(TEXTS))


def test_cached_documents_score_the_same_and_are_not_encoded(triton: TritonServer, reference: ColbertModel) -> None:
    texts = [text for labelled in read_labelled_texts().values() for text, _ in labelled]
    documents = list(dict.fromkeys([*texts, LONG_TEXT]))
    cache = MemoryEmbeddingCache(2**26)
    with LycheeClient(triton.grpc_url, embedding_cache=cache) as client:
        first = client.rerank(QUERIES[0], documents)
        before = count_rows(triton, "text_encoder"), count_rows(triton, "scoring_head")
        second = client.rerank(QUERIES[0], [*documents, documents[0]])
        after = count_rows(triton, "text_encoder"), count_rows(triton, "scoring_head")
    assert after[0] - before[0] == 1  # the query
    assert after[1] - before[1] == 1  # all documents lie in one row
    assert (first.embedding_cache.hits, first.embedding_cache.misses) == (0, len(documents))
    assert (second.embedding_cache.hits, second.embedding_cache.misses) == (len(documents), 0)
    scores = reference.score([(QUERIES[0], document) for document in documents])
    seen = {result.index: result for result in second.results}
    assert seen.pop(len(documents)).relevance_score == seen[0].relevance_score
    for result in first.results:
        assert seen[result.index] == result
        assert result.relevance_score == pytest.approx(float(scores[result.index]), abs=SCORE_ATOL)


def test_ensemble_scores_as_our_client_does(triton: TritonServer, reference: ColbertModel) -> None:
    query = reference.embed_query(QUERIES[0]).half().numpy()[:, None]
    with contextlib.closing(InferenceServerClient(triton.grpc_url)) as raw:
        for text in TEXTS:
            ids, mask = (part.numpy() for part in reference.tokenize_document(text))
            tensors = {"query_embeddings": query, "input_ids": ids, "attention_mask": mask}
            inputs = []
            for tensor, values in tensors.items():
                datatype = {"float16": "FP16", "int64": "INT64"}[str(values.dtype)]
                inputs.append(InferInput(tensor, list(values.shape), datatype))
                inputs[-1].set_data_from_numpy(np.ascontiguousarray(values))
            answer = raw.infer("rerank_text", inputs)
            expected = float(reference.score([(QUERIES[0], text)])[0])
            assert answer.as_numpy("relevance_score").shape == (1, 1)
            assert float(answer.as_numpy("relevance_score")[0, 0]) == pytest.approx(expected, abs=SCORE_ATOL)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_vectors_that_are_no_numbers_are_refused(triton: TritonServer, reference: ColbertModel, bad: float) -> None:
    dim, length = reference.settings["dim"], reference.settings["query_maxlen"]
    query = np.full((1, 1, length, dim), dim**-0.5, np.float16)
    documents = np.full((1, 3, 7, dim), -(dim**-0.5), np.float16)
    with contextlib.closing(InferenceServerClient(triton.grpc_url)) as raw:
        answers = []
        for spoiled in (False, True):
            documents[0, 1, 2, 3] = bad if spoiled else documents[0, 1, 2, 3]
            inputs = []
            for tensor, values in {"query_embeddings": query, "document_embeddings": documents}.items():
                inputs.append(InferInput(tensor, list(values.shape), "FP16"))
                inputs[-1].set_data_from_numpy(values)
            if spoiled:
                with pytest.raises(InferenceServerException, match="document_embeddings has NaN or infinite values"):
                    raw.infer("scoring_head", inputs)
            else:
                answers.append(raw.infer("scoring_head", inputs).as_numpy("relevance_score"))
    np.testing.assert_allclose(answers[0], np.zeros((1, 3)), atol=1e-3)


def test_rest_gives_the_same_scores_and_refuses_an_image_alone(
    triton: TritonServer, reference: ColbertModel, tmp_path: Path
) -> None:
    stream = io.BytesIO()
    make_images()[1].save(stream, "PNG")
    image = {"image": "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()}
    body = {"query": QUERIES[0], "documents": [*TEXTS, image]}
    with contextlib.ExitStack() as stack:
        gateway = stack.enter_context(run_gateway(tmp_path, triton.grpc_url, "--no-web"))
        gateway.wait_for("/health/ready", 200)
        http = stack.enter_context(httpx.Client(base_url=gateway.url, timeout=60, trust_env=False))
        answers = [http.post("/v1/rerank", json=body) for _ in range(2)]
    expected = reference.score([(QUERIES[0], document) for document in TEXTS])
    for answer in answers:
        assert answer.status_code == 200, answer.text
        ranked = [result for result in answer.json()["results"] if result["decision"] != "error"]
        seen = {result["index"]: result["relevance_score"] for result in ranked}
        assert seen == pytest.approx({index: float(score) for index, score in enumerate(expected)}, abs=SCORE_ATOL)
        assert "Images are read by lychee-rerank-mm" in str(answer.json()["errors"])

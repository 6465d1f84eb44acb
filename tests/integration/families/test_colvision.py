"""ColQwen2, ColQwen2.5 and ColPali end to end: export, Triton, client and REST; scores as transformers has them."""

import base64
import contextlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from checkpoints.colvision_reference import PageModel, load_page_model
from checkpoints.exports import LIMITS
from checkpoints.inputs import TEXTS, make_images
from integration.gateway.running_gateway import run_gateway
from lychee_client import Image, Images, ImageText, InvalidInputError, LycheeClient
from lychee_client.memory_cache import MemoryEmbeddingCache
from lychee_client.triton_key import KEY_VARIABLE
from lychee_server import TritonServer
from PIL import Image as PillowImage
from tritonclient.grpc import InferenceServerClient

pytestmark = pytest.mark.triton

SCORE_ATOL, LOGIT_ATOL = 1e-4, 1e-3
QUERY = "a cat on the sofa?"
SHORT_TEXTS = TEXTS[:-1]


@pytest.fixture(scope="module", params=["colqwen2", "colqwen2_5", "colpali"])
def name(request: pytest.FixtureRequest) -> str:
    """Return each checkpoint's name in turn."""
    return str(request.param)


@pytest.fixture(scope="module")
def reference(checkpoint_folder: Callable[[str], Path], name: str) -> PageModel:
    """Load the checkpoint as its authors do, with the images of the export."""
    return load_page_model(checkpoint_folder(name), LIMITS.max_img_size**2)


def mix() -> list[str | PillowImage.Image]:
    """Return seven documents: pages of every size between texts."""
    images = make_images()
    return [SHORT_TEXTS[1], images[1], images[2], SHORT_TEXTS[2], images[3], images[4], SHORT_TEXTS[0]]


def to_inputs(documents: list[str | PillowImage.Image]) -> list[Any]:
    return [each if isinstance(each, str) else Image.from_pil(each) for each in documents]


def count_rows(triton: TritonServer, *models: str) -> int:
    """Return how many rows some models have computed so far."""
    with contextlib.closing(InferenceServerClient(triton.grpc_url)) as raw:
        return sum(int(raw.get_inference_statistics(model).model_stats[0].inference_count) for model in models)


@pytest.mark.parametrize(("protocol", "shared_memory"), [("grpc", False), ("grpc", True), ("http", False)])
def test_texts_and_pages_score_as_the_authors_have_it(
    triton: TritonServer, reference: PageModel, protocol: str, shared_memory: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, triton.key)
    url = triton.grpc_url if protocol == "grpc" else f"http://{triton.http_url}"
    with LycheeClient(url, shared_memory=shared_memory) as client:
        assert client.check_golden_pairs().max_abs_error < SCORE_ATOL
        for count in range(1, 8):
            documents = mix()[-count:]
            response = client.rerank(QUERY, to_inputs(documents))
            scores, logits = reference.score(QUERY, documents), reference.compute_logits(QUERY, documents)
            assert len(response.results) == count
            for result in response.results:
                document = documents[result.index]
                assert result.relevance_score == pytest.approx(float(scores[result.index]), abs=SCORE_ATOL)
                assert result.logit == pytest.approx(float(logits[result.index]), abs=LOGIT_ATOL)
                assert result.modality == ("text" if isinstance(document, str) else "image")
                if not isinstance(document, str):
                    assert result.image_size == document.size
                    assert result.image_tokens is not None


def test_what_is_not_read_is_refused_by_itself(triton: TritonServer, reference: PageModel) -> None:
    page = Image.from_pil(make_images()[1])
    broken = Image.from_bytes(b"no image")
    with LycheeClient(triton.grpc_url) as client:
        documents = ["a text", ImageText(page, "and text"), Images((page, page)), broken, page]
        response = client.rerank(QUERY, documents)
        assert {result.index for result in response.results} == {0, 4}
        errors = {error.index: str(error.error) for error in response.errors}
        assert "reads only texts or images as a document" in errors[1]
        assert "has 2 images" in errors[2]
        assert "send each as a document of its own" in errors[2]
        assert set(errors) == {1, 2, 3}
        with pytest.raises(InvalidInputError, match="reads only texts as a query"):
            client.rerank(page, ["a text"])
    expected = reference.score(QUERY, ["a text", make_images()[1]])
    seen = {result.index: result.relevance_score for result in response.results}
    assert seen == pytest.approx({0: float(expected[0]), 4: float(expected[1])}, abs=SCORE_ATOL)


def test_cached_pages_score_the_same_and_are_not_encoded(triton: TritonServer, tmp_path: Path) -> None:
    paths = [tmp_path / f"{index}.png" for index in range(3)]
    for path, image in zip(paths, make_images()[1:], strict=False):
        image.save(path)
    cache = MemoryEmbeddingCache(2**26)
    encoders = ("vision_encoder", "text_encoder")
    with LycheeClient(triton.grpc_url, embedding_cache=cache) as client:
        documents = ["a text", *(Image.from_path(path) for path in paths)]
        first = client.rerank(QUERY, documents)
        before = count_rows(triton, *encoders)
        again = ["a text", *(Image.from_bytes(path.read_bytes()) for path in paths)]
        second = client.rerank(QUERY, [*again, Image.from_path(paths[0])])
        assert count_rows(triton, *encoders) - before == 1  # the query
    assert (first.embedding_cache.hits, first.embedding_cache.misses) == (0, 4)
    assert (second.embedding_cache.hits, second.embedding_cache.misses) == (4, 0)
    seen = {result.index: result for result in second.results}
    assert seen.pop(4).relevance_score == seen[1].relevance_score
    for result in first.results:
        cached = seen[result.index]
        assert cached.relevance_score == pytest.approx(result.relevance_score, abs=1e-6)  # in another order of rows
        assert (cached.tokens, cached.truncated, cached.modality) == (result.tokens, result.truncated, result.modality)
        assert (cached.image_size, cached.image_resized_to) == (result.image_size, result.image_resized_to)
        assert cached.image_tokens == result.image_tokens


def test_ensembles_score_as_our_client_does(triton: TritonServer, reference: PageModel) -> None:
    documents = mix()
    with LycheeClient(triton.grpc_url) as client:
        spec = client.manifest()
        response = client.rerank(QUERY, to_inputs(documents))
    assert set(spec.asked_models) == {"text_encoder", "image_encoder", "scoring_head"}
    seen = {result.index: result.relevance_score for result in response.results}
    import torch
    from lychee_client._pipelines.image_tensors import pack_images, without_images
    from tritonclient.grpc import InferInput

    with torch.no_grad():
        query = reference.embed(reference.read_query(QUERY)).half().numpy()[None, None]
    kinds = {"float16": "FP16", "float32": "FP32", "int64": "INT64", "uint8": "UINT8"}
    with contextlib.closing(InferenceServerClient(triton.grpc_url)) as raw:
        for index, document in enumerate(documents):
            ids = reference.read(document)["input_ids"].numpy()
            tensors = {"query_embeddings": query, "input_ids": ids, "attention_mask": np.ones_like(ids)}
            if isinstance(document, str):
                tensors |= without_images(spec.image, 1)
            else:
                assert spec.image is not None
                tensors |= pack_images([Image.from_pil(document).prepare(spec.image)], spec.image)
            inputs = []
            for tensor, values in tensors.items():
                inputs.append(InferInput(tensor, list(values.shape), kinds[str(values.dtype)]))
                inputs[-1].set_data_from_numpy(np.ascontiguousarray(values))
            answer = raw.infer("rerank_text" if isinstance(document, str) else "rerank_image", inputs)
            assert float(answer.as_numpy("relevance_score")[0, 0]) == pytest.approx(seen[index], abs=SCORE_ATOL)


def test_rest_gives_the_same_scores(triton: TritonServer, reference: PageModel, tmp_path: Path) -> None:
    documents = mix()
    sent: list[Any] = []
    for document in documents:
        if isinstance(document, str):
            sent.append(document)
            continue
        stream = io.BytesIO()
        document.save(stream, "PNG")
        sent.append({"image": "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()})
    with contextlib.ExitStack() as stack:
        gateway = stack.enter_context(run_gateway(tmp_path, triton.grpc_url, "--no-web"))
        gateway.wait_for("/health/ready", 200)
        http = stack.enter_context(httpx.Client(base_url=gateway.url, timeout=60, trust_env=False))
        answers = [http.post("/v1/rerank", json={"query": QUERY, "documents": sent}) for _ in range(2)]
    expected = {index: float(score) for index, score in enumerate(reference.score(QUERY, documents))}
    for answer in answers:
        assert answer.status_code == 200, answer.text
        seen = {result["index"]: result["relevance_score"] for result in answer.json()["results"]}
        assert seen == pytest.approx(expected, abs=SCORE_ATOL)

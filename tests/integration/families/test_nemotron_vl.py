"""Llama Nemotron VL end to end: checkpoint folder, export, Triton, client and REST; scores as in transformers."""

import base64
import contextlib
import io
from collections.abc import Callable
from pathlib import Path

import httpx
import PIL.Image
import pytest
from checkpoints.exports import LIMITS
from checkpoints.inputs import TEXTS, make_images
from checkpoints.nemotron_vl_reference import Document, NemotronVLModel, load_nemotron_vl_model
from integration.gateway.running_gateway import run_gateway
from lychee_client import Image, Images, ImageText, InvalidInputError, LycheeClient
from lychee_server import TritonServer

pytestmark = pytest.mark.triton

SCORE_ATOL = 1e-4
QUERY = "the yellow cat"


@pytest.fixture(scope="module")
def name() -> str:
    """Return the checkpoint's name."""
    return "nemotron_vl_reranker"


@pytest.fixture(scope="module")
def reference(checkpoint_folder: Callable[[str], Path], name: str) -> NemotronVLModel:
    """Load the checkpoint with transformers."""
    return load_nemotron_vl_model(checkpoint_folder(name), LIMITS.max_tokens or 0)


def make_documents() -> list[Document]:
    """Return texts, images of every number of tiles, and both together, in turn."""
    images = make_images()
    return [
        ((text, None), (None, image), (text, image))[index % 3]
        for index, (text, image) in enumerate(zip(TEXTS * 3, sorted(images * 3, key=images.index), strict=True))
    ]


def to_input(document: Document) -> str | Image | ImageText:
    text, image = document
    if image is None:
        assert text is not None
        return text
    return Image.from_pil(image) if text is None else ImageText(Image.from_pil(image), text)


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_texts_and_images_score_as_in_transformers(
    triton: TritonServer, reference: NemotronVLModel, protocol: str
) -> None:
    url = triton.grpc_url if protocol == "grpc" else f"http://{triton.http_url}"
    documents = make_documents()
    logits = reference.compute_logits(QUERY, documents)
    with LycheeClient(url) as client:
        assert client.check_golden_pairs().max_abs_error < SCORE_ATOL
        for count in (1, 2, 3, 4, 5, 6, 7, len(documents)):
            response = client.rerank(QUERY, [to_input(document) for document in documents[:count]])
            assert not response.errors
            assert len(response.results) == count
            for result in response.results:
                assert result.logit == pytest.approx(float(logits[result.index]), abs=SCORE_ATOL)
                expected = float(logits[result.index].sigmoid())
                assert result.relevance_score == pytest.approx(expected, abs=SCORE_ATOL)
                image = documents[result.index][1]
                tokens = None if image is None else 4 * len(reference.cut(image))
                assert result.image_tokens == tokens
        picture = Image.from_pil(make_images()[1])
        with pytest.raises(InvalidInputError, match="reads only texts as a query"):
            client.rerank(picture, list(TEXTS))
        response = client.rerank(QUERY, [Images([picture, picture]), "a"])
        assert "reads at most 1 per pair" in str(response.errors[0].error)
        assert [result.index for result in response.results] == [1]


def test_fewer_tiles_are_read_where_the_caller_asks_for_them(triton: TritonServer) -> None:
    picture = PIL.Image.effect_noise((96, 64), 80).convert("RGB")
    with LycheeClient(triton.grpc_url, max_img_size=32) as client:
        (small,) = client.rerank(QUERY, [Image.from_pil(picture)]).results
        (square,) = client.rerank(
            QUERY, [Image.from_pil(picture.resize((32, 32), PIL.Image.Resampling.BICUBIC))]
        ).results
    assert (small.image_tokens, small.image_resized_to) == (4, (32, 32))
    assert small.logit == pytest.approx(square.logit, abs=1e-6)
    with LycheeClient(triton.grpc_url) as client:
        (full,) = client.rerank(QUERY, [Image.from_pil(picture)]).results
    assert (full.image_tokens, full.image_resized_to) == (28, (96, 64))


def test_rest_gives_the_scores_of_transformers(
    triton: TritonServer, reference: NemotronVLModel, tmp_path: Path
) -> None:
    documents = make_documents()

    def to_json(document: Document) -> dict[str, str]:
        body = {} if document[0] is None else {"text": document[0]}
        if document[1] is not None:
            stream = io.BytesIO()
            document[1].save(stream, "PNG")
            body["image"] = "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
        return body

    with contextlib.ExitStack() as stack:
        gateway = stack.enter_context(run_gateway(tmp_path, triton.grpc_url, "--no-web"))
        gateway.wait_for("/health/ready", 200)
        http = stack.enter_context(httpx.Client(base_url=gateway.url, timeout=60, trust_env=False))
        answer = http.post("/v1/rerank", json={"query": QUERY, "documents": list(map(to_json, documents))})
    assert answer.status_code == 200, answer.text
    expected = reference.score(QUERY, documents)
    seen = {result["index"]: result["relevance_score"] for result in answer.json()["results"]}
    assert seen == pytest.approx({index: float(score) for index, score in enumerate(expected)}, abs=SCORE_ATOL)

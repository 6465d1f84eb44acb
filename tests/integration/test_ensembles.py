"""The ensembles, which our client does not need, for clients in other languages: raw requests, the client's scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lychee_client import Image, ImageText, LycheeClient
from lychee_client.preprocessing.text import TextProcessor
from lychee_server import TritonServer
from tritonclient import grpc
from tritonclient.utils import np_to_triton_dtype

pytestmark = pytest.mark.triton

Send = Callable[..., Any]
QUERY = "一只猫"
TEXTS = ["小猫喜欢晒太阳", "A cup of espresso wakes you up.", "The cat sleeps on the sofa all day. " * 4]


@pytest.fixture(scope="module")
def server(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """Run Triton with the models in float32, where scores of different batches can be compared."""
    log_path = tmp_path_factory.mktemp("triton") / "triton.log"
    with TritonServer(
        repository, http_port=0, grpc_port=0, metrics_port=0, config_name="cpu", log_path=log_path
    ) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: TritonServer) -> Iterator[LycheeClient]:
    with LycheeClient(server.grpc_url) as connected:
        yield connected


@pytest.fixture(scope="module")
def send(server: TritonServer) -> Iterator[Send]:
    """Send named arrays to a model, and return one of its outputs."""
    with grpc.InferenceServerClient(server.grpc_url) as triton:

        def infer(model: str, output: str, **arrays: np.ndarray) -> Any:
            inputs = []
            for name, array in arrays.items():
                tensor = grpc.InferInput(name, array.shape, np_to_triton_dtype(array.dtype))
                tensor.set_data_from_numpy(array)
                inputs.append(tensor)
            return triton.infer(model, inputs).as_numpy(output)

        yield infer


@pytest.fixture(scope="module")
def texts(client: LycheeClient, send: Send) -> TextProcessor:
    (tokenizer,) = send("client_assets", "tokenizer")
    return TextProcessor(tokenizer.decode(), client.manifest().text)


@pytest.fixture(scope="module")
def query_embedding(texts: TextProcessor, send: Send) -> np.ndarray:
    tensors = texts.to_tensors([texts.tokenize_query(QUERY)])
    embedding: np.ndarray = send("text_encoder", "text_embedding", **tensors)
    return embedding


def scores_of(client: LycheeClient, documents: list[Any]) -> list[float]:
    results = client.rerank(QUERY, documents).results
    return [result.relevance_score for result in sorted(results, key=lambda result: result.index)]


def test_texts(client: LycheeClient, send: Send, texts: TextProcessor, query_embedding: np.ndarray) -> None:
    tensors = texts.to_tensors(texts.tokenize_documents(TEXTS))
    repeated = np.repeat(query_embedding, len(TEXTS), axis=0)
    scores = send("rerank_text", "relevance_score", query_embedding=repeated, **tensors)
    assert scores[:, 0].tolist() == pytest.approx(scores_of(client, list(TEXTS)), abs=1e-4)


def test_images(client: LycheeClient, send: Send, photos: Path, query_embedding: np.ndarray) -> None:
    images = [Image.from_path(photos / f"{name}.jpg") for name in ("cat", "coffee")]
    pixels = np.stack([image.prepare(client.manifest().image).pixel_values for image in images])
    repeated = np.repeat(query_embedding, len(images), axis=0)
    scores = send("rerank_image", "relevance_score", query_embedding=repeated, pixel_values=pixels)
    assert scores[:, 0].tolist() == pytest.approx(scores_of(client, images), abs=1e-4)


def test_images_with_texts(
    client: LycheeClient, send: Send, photos: Path, texts: TextProcessor, query_embedding: np.ndarray
) -> None:
    image = Image.from_path(photos / "coffee.jpg")
    pixels = image.prepare(client.manifest().image).pixel_values[None]
    tensors: dict[str, np.ndarray] = dict(texts.to_tensors(texts.tokenize_documents(TEXTS)))
    tensors["pixel_values"] = np.repeat(pixels, len(TEXTS), axis=0)
    tensors["query_embedding"] = np.repeat(query_embedding, len(TEXTS), axis=0)
    scores = send("rerank_image_text", "relevance_score", **tensors)
    documents = [ImageText(image, text) for text in TEXTS]
    assert scores[:, 0].tolist() == pytest.approx(scores_of(client, documents), abs=1e-4)

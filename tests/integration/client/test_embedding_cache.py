"""The embedding cache against a real Triton: the scores of the ensembles, from encoders and scoring heads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from lychee_client import CacheUse, Image, ImageText, LycheeClient, RerankResponse
from lychee_server import TritonServer

from .conftest import Connect, Protocol

pytestmark = pytest.mark.triton


class Cache(dict[bytes, bytes]):
    """Keeps everything."""

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return [self.get(key) for key in keys]

    def put_many(self, entries: Mapping[bytes, bytes]) -> None:
        self.update(entries)


@pytest.fixture
def documents(photos: Path) -> list[Any]:
    cat, coffee = (Image.from_path(photos / f"{name}.jpg") for name in ("cat", "coffee"))
    texts = [
        "小猫喜欢晒太阳",
        "A cup of espresso.",
        "",
        "word " * 600,
        *(f"{'long ' * n}text" for n in range(0, 80, 2)),
    ]
    return [*texts, cat, coffee, ImageText(cat, "虎斑猫"), Image.from_bytes(b"damaged"), "A cup of espresso."]


def scores(response: RerankResponse) -> dict[int, tuple[float, float]]:
    return {result.index: (result.relevance_score, result.logit) for result in response.results}


def reports(response: RerankResponse) -> Any:
    seen = {
        result.index: (result.modality, result.tokens, result.truncated, result.image_size, result.image_resized_to)
        for result in response.results
    }
    return seen, [(failed.index, failed.message) for failed in response.errors]


def test_scores_are_those_of_the_ensembles(
    server: TritonServer, protocol: Protocol, connect: Connect, documents: list[Any], photos: Path
) -> None:
    url = server.grpc_url if protocol == "grpc" else f"http://{server.http_url}"
    cat = Image.from_path(photos / "cat.jpg")
    cache = Cache()
    plain, cached = connect(url), connect(url, embedding_cache=cache)
    distinct = len(documents) - 2 - 2 + 1  # the refused ones; "A cup of espresso." and the cat; two parts of one
    for number, query in enumerate(("一只猫", cat, ImageText(cat, "一只猫"))):
        expected = plain.rerank(query, documents)
        for priority in ("interactive", "bulk"):
            response = cached.rerank(query, documents, priority=priority)
            assert response.embedding_cache is not None
            hits = 0 if number == 0 and priority == "interactive" else distinct
            assert response.embedding_cache == CacheUse(hits, distinct + 1 - hits)  # the damaged image is never there
            assert reports(response) == reports(expected)
            assert scores(response) == {
                index: pytest.approx(pair, abs=1e-6) for index, pair in scores(expected).items()
            }
    assert len(cache) == distinct


def test_hits_ask_the_encoders_for_the_query_only(server: TritonServer, documents: list[Any]) -> None:
    with LycheeClient(server.grpc_url, embedding_cache=Cache()) as client:
        client.rerank("a cat", documents[:-2])
        timings = client.rerank("a cat on a sofa", documents[:-2], server_timings=True).timings
    assert timings.server is not None
    assert timings.server["text_encoder"].requests == 1
    assert timings.server.keys() == {
        "text_encoder",
        "scoring_head_text",
        "scoring_head_image",
        "scoring_head_image_text",
    }

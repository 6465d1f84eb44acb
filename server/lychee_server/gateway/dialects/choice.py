"""Which dialect a request speaks: by its path, or else by a field that no other has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from lychee_server.gateway.dialects.dialect import Dialect
from lychee_server.gateway.dialects.elasticsearch import ELASTICSEARCH
from lychee_server.gateway.dialects.infinity import INFINITY
from lychee_server.gateway.dialects.mixedbread import MIXEDBREAD
from lychee_server.gateway.dialects.nim import NIM
from lychee_server.gateway.dialects.tei import TEI
from lychee_server.gateway.dialects.vllm import VLLM
from lychee_server.gateway.dialects.voyage import VOYAGE
from lychee_server.gateway.dialects.weaviate import WEAVIATE

# Infinity's clients and vLLM's send the same and read something else, and so do Voyage's and Cohere's.
BY_PATH: Final[Mapping[str, Dialect]] = {
    "/v1/ranking": NIM,
    "/ranking": NIM,
    "/v1/retrieval/{model}/reranking": NIM,
    "/v1/retrieval/{owner}/{model}/reranking": NIM,
    "/infinity/rerank": INFINITY,
    "/voyage/v1/rerank": VOYAGE,
}
RERANK_PATHS: Final = ("/v1/rerank", "/v2/rerank", "/rerank", "/v1/reranking", "/reranking", *BY_PATH)
SCORE_PATHS: Final = ("/v1/score", "/score")

# The first field that a request has decides, whatever its value: clients send null for what was not set.
_RANKINGS: Final = {"passages": NIM, "texts": TEI, "input": MIXEDBREAD, "top_k": VOYAGE}
_AT_RERANK: Final = {**_RANKINGS, "property": WEAVIATE, "raw_scores": INFINITY}
_SCORES: Final = dict.fromkeys(("text_1", "text_2", "data_1", "data_2", "queries", "items"), VLLM)
_SOURCE_HEADER: Final = "request-source"
_ELASTICSEARCH: Final = "elasticsearch"


def choose(path: str, sent: Mapping[str, Any], headers: Mapping[str, str]) -> Dialect | None:
    """Return the dialect of a request; None: the gateway's own, which is Cohere's, Jina's and vLLM's too.

    Args:
        path: The route's template.
        sent: The JSON object that was sent.
        headers: The request's headers, by lower-case name.
    """
    if path in BY_PATH:
        return BY_PATH[path]
    for name, dialect in _by_field(path).items():
        if name in sent:
            return dialect
    return ELASTICSEARCH if headers.get(_SOURCE_HEADER, "").endswith(_ELASTICSEARCH) else None


def spoken_at(path: str) -> list[Dialect]:
    """Return the dialects that a path takes, besides the gateway's own shape where no dialect belongs to the path."""
    return [BY_PATH[path]] if path in BY_PATH else list(dict.fromkeys(_by_field(path).values()))


def _by_field(path: str) -> Mapping[str, Dialect]:
    return _SCORES if path in SCORE_PATHS else _AT_RERANK if path == "/rerank" else _RANKINGS

"""Which dialect a request speaks."""

from __future__ import annotations

import pytest
from lychee_server.gateway.dialects.choice import BY_PATH, RERANK_PATHS, choose, spoken_at


@pytest.mark.parametrize(
    ("path", "fields", "expected"),
    [
        ("/v1/rerank", "query documents top_n max_chunks_per_doc return_documents", None),
        ("/rerank", "query documents truncation relevant_spans strict", None),
        ("/rerank", "query texts raw_scores", "tei"),
        ("/v1/rerank", "query texts top_n", "tei"),
        ("/v1/rerank", "query documents top_k", "voyage"),
        ("/voyage/v1/rerank", "query documents", "voyage"),
        ("/rerank", "query documents raw_scores", "infinity"),
        ("/v1/rerank", "query documents raw_scores", None),
        ("/infinity/rerank", "query documents", "infinity"),
        ("/v1/reranking", "query input top_k", "mixedbread"),
        ("/v1/ranking", "query", "nim"),
        ("/v1/retrieval/{model}/reranking", "query passages top_k", "nim"),
        ("/rerank", "query documents property", "weaviate"),
        ("/v1/score", "query document", None),
        ("/score", "text_1 text_2", "vllm"),
        ("/score", "text_2", "vllm"),
        ("/v1/score", "queries documents", "vllm"),
        ("/v1/score", "data_1 data_2 top_k", "vllm"),
    ],
)
def test_path_and_fields_decide(path: str, fields: str, expected: str | None) -> None:
    dialect = choose(path, dict.fromkeys(fields.split()), {})
    assert (dialect and dialect.name) == expected


def test_elasticsearch_says_who_it_is() -> None:
    headers = {"request-source": "unspecified:elasticsearch"}
    dialect = choose("/v1/rerank", {"documents": []}, headers)
    assert dialect is not None
    assert dialect.name == "elasticsearch"
    tei = choose("/rerank", {"texts": []}, headers)
    assert tei is not None
    assert tei.name == "tei"


def test_every_dialect_can_be_spoken_somewhere_and_has_a_name_of_its_own() -> None:
    dialects = [dialect for path in ("/rerank", "/score") for dialect in spoken_at(path)]
    assert set(BY_PATH.values()) <= set(dialects)
    assert set(BY_PATH) < set(RERANK_PATHS)
    assert len({dialect.name for dialect in dialects}) == len(dialects)
    assert len({dialect.request["title"] for dialect in dialects}) == len(dialects)

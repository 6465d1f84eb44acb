"""LangChain's document compressors."""

from __future__ import annotations

from typing import Any

from rankers.ranker import KEY, MODEL, Call, Ranker


def compress(compressor: Any, call: Call) -> list[tuple[int, float]]:
    """Return what a compressor makes of documents that know their position."""
    from langchain_core.documents import Document

    documents = [Document(page_content=text, metadata={"position": place}) for place, text in enumerate(call.texts)]
    found = compressor.compress_documents(documents, call.query)
    return [(each.metadata["position"], each.metadata["relevance_score"]) for each in found]


def rank_cohere(call: Call) -> list[tuple[int, float]]:
    from langchain_cohere import CohereRerank

    return compress(CohereRerank(base_url=call.url, cohere_api_key=KEY, model=MODEL, top_n=call.top_n), call)


def rank_nvidia(call: Call) -> list[tuple[int, float]]:
    from langchain_nvidia_ai_endpoints import NVIDIARerank

    return compress(NVIDIARerank(base_url=f"{call.url}/v1", api_key=KEY, model=MODEL, top_n=call.count), call)


def rank_infinity(call: Call) -> list[tuple[int, float]]:
    from infinity_client import Client
    from langchain_community.document_compressors.infinity_rerank import InfinityRerank

    with Client(base_url=call.url, headers={"Authorization": f"Bearer {KEY}"}) as client:
        return compress(InfinityRerank(client=client, model=MODEL, top_n=call.top_n), call)


def rank_voyage(call: Call) -> list[tuple[int, float]]:
    from langchain_voyageai import VoyageAIRerank

    return compress(VoyageAIRerank(base_url=f"{call.url}/v1", api_key=KEY, model=MODEL, top_k=call.top_n), call)


LANGCHAIN = (
    Ranker("langchain-cohere", rank_cohere),
    Ranker("langchain-nvidia", rank_nvidia, "logit"),
    Ranker("langchain-infinity", rank_infinity),
    Ranker("langchain-voyageai", rank_voyage),
)

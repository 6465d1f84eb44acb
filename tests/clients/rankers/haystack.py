"""Haystack's rankers."""

from __future__ import annotations

from typing import Any

from rankers.ranker import KEY, MODEL, Call, Ranker


def run(ranker: Any, call: Call, **options: Any) -> list[tuple[int, float]]:
    """Return what a ranker makes of documents whose ids are their positions."""
    from haystack import Document

    documents = [Document(id=str(place), content=text) for place, text in enumerate(call.texts)]
    found = ranker.run(query=call.query, documents=documents, **options)["documents"]
    return [(int(each.id), each.score) for each in found]


def key() -> Any:
    from haystack.utils import Secret

    return Secret.from_token(KEY)


def rank_cohere(call: Call) -> list[tuple[int, float]]:
    from haystack_integrations.components.rankers.cohere import CohereRanker

    return run(CohereRanker(api_base_url=call.url, api_key=key(), model=MODEL), call, top_k=call.count)


def rank_tei(call: Call) -> list[tuple[int, float]]:
    from haystack_integrations.components.rankers.huggingface_api import HuggingFaceTEIRanker, TruncationDirection

    direction = TruncationDirection.RIGHT
    return run(HuggingFaceTEIRanker(url=call.url, token=key()), call, top_k=call.count, truncation_direction=direction)


def rank_tei_raw(call: Call) -> list[tuple[int, float]]:
    from haystack_integrations.components.rankers.huggingface_api import HuggingFaceTEIRanker

    return run(HuggingFaceTEIRanker(url=call.url, token=key(), raw_scores=True), call, top_k=call.count)


def rank_nvidia(call: Call) -> list[tuple[int, float]]:
    from haystack_integrations.components.rankers.nvidia import NvidiaRanker

    return run(NvidiaRanker(api_url=f"{call.url}/v1", api_key=key(), model=MODEL), call, top_k=call.count)


def rank_vllm(call: Call) -> list[tuple[int, float]]:
    from haystack_integrations.components.rankers.vllm import VLLMRanker

    return run(VLLMRanker(api_base_url=f"{call.url}/v1", api_key=key(), model=MODEL), call, top_k=call.top_n)


def rank_jina(call: Call) -> list[tuple[int, float]]:
    from haystack_integrations.components.rankers.jina import JinaRanker

    return run(JinaRanker(base_url=f"{call.url}/v1/rerank", api_key=key(), model=MODEL), call, top_k=call.top_n)


HAYSTACK = (
    Ranker("haystack-cohere", rank_cohere),
    Ranker("haystack-tei", rank_tei),
    Ranker("haystack-tei-raw", rank_tei_raw, "logit"),
    Ranker("haystack-nvidia", rank_nvidia, "logit"),
    Ranker("haystack-vllm", rank_vllm),
    Ranker("haystack-jina", rank_jina),
)

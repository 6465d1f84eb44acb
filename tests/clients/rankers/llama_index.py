"""LlamaIndex's node postprocessors."""

from __future__ import annotations

from typing import Any

import pytest

from rankers.ranker import KEY, MODEL, Call, Ranker


def postprocess(reranker: Any, call: Call) -> list[tuple[int, float]]:
    """Return what a postprocessor makes of nodes whose ids are their positions."""
    from llama_index.core.schema import NodeWithScore, TextNode

    nodes = [NodeWithScore(node=TextNode(text=text, id_=str(place))) for place, text in enumerate(call.texts)]
    return [(int(each.node.node_id), each.score) for each in reranker.postprocess_nodes(nodes, query_str=call.query)]


def rank_cohere(call: Call) -> list[tuple[int, float]]:
    from llama_index.postprocessor.cohere_rerank import CohereRerank

    return postprocess(CohereRerank(base_url=call.url, api_key=KEY, model=MODEL, top_n=call.count), call)


def rank_tei(call: Call) -> list[tuple[int, float]]:
    from llama_index.postprocessor.tei_rerank import TextEmbeddingInference

    return postprocess(TextEmbeddingInference(base_url=call.url, auth_token=f"Bearer {KEY}", top_n=call.count), call)


def rank_nvidia(call: Call) -> list[tuple[int, float]]:
    from llama_index.postprocessor.nvidia_rerank import NVIDIARerank

    return postprocess(NVIDIARerank(base_url=f"{call.url}/v1", api_key=KEY, model=MODEL, top_n=call.count), call)


def rank_xinference(call: Call) -> list[tuple[int, float]]:
    from llama_index.postprocessor.xinference_rerank import XinferenceRerank

    return postprocess(XinferenceRerank(base_url=call.url, model=MODEL, top_n=call.count), call)


def rank_jina(call: Call) -> list[tuple[int, float]]:
    from llama_index.postprocessor.jinaai_rerank import JinaRerank

    return postprocess(JinaRerank(base_url=f"{call.url}/v1", api_key=KEY, model=MODEL, top_n=call.count), call)


def rank_siliconflow(call: Call) -> list[tuple[int, float]]:
    from llama_index.postprocessor.siliconflow_rerank import SiliconFlowRerank

    base = f"{call.url}/v1/rerank"
    return postprocess(SiliconFlowRerank(base_url=base, api_key=KEY, model=MODEL, top_n=call.count), call)


def rank_mixedbread(call: Call) -> list[tuple[int, float]]:
    from llama_index.postprocessor.mixedbreadai_rerank import MixedbreadAIRerank

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MIXEDBREAD_BASE_URL", call.url)  # the only way
        return postprocess(MixedbreadAIRerank(api_key=KEY, model=MODEL, top_n=call.count), call)


LLAMA_INDEX = (
    Ranker("llama-index-cohere", rank_cohere),
    Ranker("llama-index-tei", rank_tei),
    Ranker("llama-index-nvidia", rank_nvidia, "logit"),
    Ranker("llama-index-xinference", rank_xinference, sends_key=False),
    Ranker("llama-index-jina", rank_jina),
    Ranker("llama-index-siliconflow", rank_siliconflow),
    Ranker("llama-index-mixedbread", rank_mixedbread),
)

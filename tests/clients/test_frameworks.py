"""LangChain, LlamaIndex and Haystack beyond scores: images, defaults, asynchronous calls, errors."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path
from typing import Any

import pytest
from rankers.ranker import KEY, MODEL, Native

ROOT = Path(__file__).parents[2]
QUERY = "一只猫"
TEXTS = ["a cup of coffee", "店里的小猫喜欢在窗台上晒太阳。", "猎鹰九号火箭竖立在发射台上。"]


@pytest.fixture
def photo() -> str:
    content = (ROOT / "examples" / "catalogue" / "photos" / "cat.jpg").read_bytes()
    return "data:image/jpeg;base64," + base64.b64encode(content).decode()


def test_langchain_nvidia_ranks_images(gateway_url: str, photo: str, native: Native) -> None:
    from langchain_core.documents import Document
    from langchain_nvidia_ai_endpoints import NVIDIARerank

    documents = [Document(page_content="", metadata={"image": photo}), Document(page_content=TEXTS[0])]
    ranker = NVIDIARerank(base_url=gateway_url, api_key=KEY, model=MODEL)
    found = ranker.compress_documents(documents, "a cat")
    expected = native("a cat", [{"image": photo}, TEXTS[0]])["results"]
    assert [each.metadata["relevance_score"] for each in found] == pytest.approx(
        [result["logit"] for result in expected], abs=1e-5
    )


def test_langchain_nvidia_finds_the_model_itself(gateway_url: str) -> None:
    from langchain_nvidia_ai_endpoints import NVIDIARerank

    assert NVIDIARerank(base_url=gateway_url, api_key=KEY).model == MODEL


def test_langchain_async_sees_the_same(gateway_url: str, native: Native) -> None:
    from langchain_core.documents import Document
    from langchain_nvidia_ai_endpoints import NVIDIARerank

    ranker = NVIDIARerank(base_url=gateway_url, api_key=KEY, model=MODEL)
    documents = [Document(page_content=text) for text in TEXTS]
    found = asyncio.run(ranker.acompress_documents(documents, QUERY))
    expected = native(QUERY, TEXTS)["results"]
    assert [each.page_content for each in found] == [TEXTS[result["index"]] for result in expected]


def test_llama_index_nvidia_finds_the_model_itself(gateway_url: str) -> None:
    from llama_index.postprocessor.nvidia_rerank import NVIDIARerank

    assert NVIDIARerank(base_url=f"{gateway_url}/v1").model == MODEL


def test_llama_index_keeps_every_node_where_one_cannot_be_ranked(gateway_url: str) -> None:
    from llama_index.core.schema import NodeWithScore, TextNode
    from llama_index.postprocessor.tei_rerank import TextEmbeddingInference

    nodes = [NodeWithScore(node=TextNode(text=text)) for text in ("", *TEXTS)]
    found = TextEmbeddingInference(base_url=gateway_url, top_n=9).postprocess_nodes(nodes, query_str=QUERY)
    assert [each.node.text for each in found][::3] == [TEXTS[1], ""]


def haystack_documents() -> list[Any]:
    from haystack import Document

    return [Document(content=text) for text in TEXTS]


@pytest.mark.parametrize("path", ["", "/v1"])
def test_haystack_nvidia_needs_no_model(path: str, gateway_url: str) -> None:
    from haystack.utils import Secret
    from haystack_integrations.components.rankers.nvidia import NvidiaRanker

    ranker = NvidiaRanker(api_url=gateway_url + path, api_key=Secret.from_token(KEY), truncate="END")
    assert ranker.run(QUERY, haystack_documents())["documents"][0].content == TEXTS[1]


def test_haystack_vllm_cuts_at_a_threshold_and_passes_limits(gateway_url: str) -> None:
    from haystack_integrations.components.rankers.vllm import VLLMRanker

    limits = {"truncate_prompt_tokens": 32}
    ranker = VLLMRanker(api_base_url=gateway_url, model=MODEL, score_threshold=0.5, extra_parameters=limits)
    answer = ranker.run(QUERY, haystack_documents())
    assert [each.content for each in answer["documents"]] == [TEXTS[1]]
    assert answer["meta"]["usage"]["total_tokens"] > 0


def test_haystack_async_sees_the_same(gateway_url: str) -> None:
    from haystack_integrations.components.rankers.huggingface_api import HuggingFaceTEIRanker

    answer = asyncio.run(HuggingFaceTEIRanker(url=gateway_url).run_async(QUERY, haystack_documents()))
    assert answer["documents"][0].content == TEXTS[1]


def test_haystack_tei_raises_with_the_message(gateway_url: str) -> None:
    from haystack_integrations.components.rankers.huggingface_api import HuggingFaceTEIRanker

    with pytest.raises(RuntimeError, match="query"):
        HuggingFaceTEIRanker(url=gateway_url, max_retries=1).run("", haystack_documents())


@pytest.mark.parametrize("path", ["/v1/rerank", "/rerank", "/v1/rerank/"])
def test_haystack_jina_raises_with_the_message(path: str, gateway_url: str) -> None:
    from haystack.utils import Secret
    from haystack_integrations.components.rankers.jina import JinaRanker

    ranker = JinaRanker(base_url=gateway_url + path, api_key=Secret.from_token(KEY))
    assert ranker.run(QUERY, haystack_documents())["documents"][0].content == TEXTS[1]
    with pytest.raises(RuntimeError, match="query"):
        ranker.run("", haystack_documents())

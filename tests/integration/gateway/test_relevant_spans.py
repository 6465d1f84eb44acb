"""The relevant sentence of an irrelevant paragraph: the SDK, REST and the command against a real Triton."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from lychee_client import Image, ImageText, LycheeClient, RelevantSpans, RerankResponse
from lychee_server import TritonServer

from .conftest import Post

pytestmark = pytest.mark.triton

LYCHEE = str(Path(sys.executable).parent / "lychee")
COFFEE = "Espresso is brewed by forcing hot water through finely ground coffee. Dr. Brown drinks two cups a day."
CAT = "A tabby cat sleeps on the sofa all day."
ROCKET = "The rocket stands on its launch pad. It will carry a satellite into orbit!"
COFFEE_ZH = "现磨意式浓缩咖啡，早上来一杯提神醒脑。退款流程：在订单页面点击申请退款！"
CAT_ZH = "店里的小猫喜欢在窗台上晒太阳。"
ROCKET_ZH = "火箭从发射台升空。你看到了吗？"
ENGLISH = f"{COFFEE} {CAT} {ROCKET}"
CHINESE = f"{COFFEE_ZH}{CAT_ZH}{ROCKET_ZH}"
QUERIES = ("a cat", "一只猫")
SPANS = RelevantSpans(threshold=0)


def best_sentences(response: RerankResponse, texts: dict[int, str]) -> dict[int, str]:
    found = {}
    for result in response.results:
        if result.relevant_spans:
            span = result.relevant_spans[0]
            found[result.index] = texts[result.index][span.start : span.end]
    return found


@pytest.mark.parametrize("query", QUERIES)
def test_the_relevant_sentence_in_an_irrelevant_paragraph_is_found(client: LycheeClient, query: str) -> None:
    response = client.rerank(query, [COFFEE, ENGLISH, CHINESE], relevant_spans=SPANS)
    found = best_sentences(response, {1: ENGLISH, 2: CHINESE, 0: COFFEE})
    assert (found[1], found[2]) == (CAT, CAT_ZH)
    for result in response.results:
        scores = [span.score for span in result.relevant_spans or ()]
        if result.index:
            assert scores[0] > result.relevance_score
            assert scores[0] > 0.55 > scores[1]
        assert len(scores) == {0: 2, 1: 5, 2: 5}[result.index]


def test_spans_are_scored_as_documents_are(client: LycheeClient) -> None:
    (result,) = client.rerank("a cat", [ENGLISH], relevant_spans=SPANS).results
    for span in result.relevant_spans or ():
        alone = client.rerank("a cat", [ENGLISH[span.start : span.end]]).results[0]
        assert span.score == pytest.approx(alone.relevance_score, abs=1e-5)


def test_a_query_with_an_image_finds_sentences_of_texts_beside_images(client: LycheeClient, photos: Path) -> None:
    cat, coffee = (Image.from_path(photos / f"{name}.jpg") for name in ("cat", "coffee"))
    response = client.rerank(ImageText(cat, "a cat"), [ImageText(coffee, ENGLISH), cat], relevant_spans=SPANS)
    assert best_sentences(response, {0: ENGLISH}) == {0: CAT}
    assert next(result for result in response.results if result.index == 1).relevant_spans is None


def test_rest_and_command_find_what_the_sdk_finds(
    client: LycheeClient, server: TritonServer, post: Post, tmp_path: Path
) -> None:
    documents = [ENGLISH, COFFEE, CHINESE, COFFEE_ZH]
    files = [tmp_path / f"{number}.txt" for number in range(len(documents))]
    for file, text in zip(files, documents, strict=True):
        file.write_text(text, encoding="utf-8")
    results = client.rerank("一只猫", documents, relevant_spans=RelevantSpans(), top_n=3).results
    expected = [asdict(result) for result in results]
    assert expected[0]["relevant_spans"]
    call = {"query": "一只猫", "documents": documents, "top_n": 3, "relevant_spans": {"mode": "enabled"}}
    command = [LYCHEE, "rerank", "--url", server.grpc_url, "--query", "一只猫", "--top-n", "3", "--spans", "--json"]
    done = subprocess.run([*command, *map(str, files)], capture_output=True, text=True, check=True, timeout=120)
    for answer in (post("/v2/rerank", call).json(), json.loads(done.stdout)):
        assert [result["index"] for result in answer["results"]] == [result["index"] for result in expected]
        for result, other in zip(answer["results"], expected, strict=True):
            assert result["spans_truncated"] is False
            assert len(result["relevant_spans"]) == len(other["relevant_spans"])
            for span, same in zip(result["relevant_spans"], other["relevant_spans"], strict=True):
                assert span == pytest.approx(same, abs=1e-5)

"""The node postprocessor for LlamaIndex, with the real LlamaIndex and a real server."""

from __future__ import annotations

import asyncio
import base64
import copy
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import (
    ImageDocument,
    ImageNode,
    MediaResource,
    MetadataMode,
    Node,
    NodeWithScore,
    QueryBundle,
    TextNode,
)
from lychee_client import Image, ImageText, InvalidInputError, LycheeClient, LycheeWarning
from lychee_client.integrations.llama_index import LycheeRerank

PHOTO = Path(__file__).parents[2] / "examples" / "catalogue" / "photos" / "cat.jpg"
QUERY = "a cat"
TEXTS = ["a cup of coffee", "小猫", "a kitten sleeps on the sofa"]

Process = Callable[..., list[NodeWithScore]]


@pytest.fixture
def nodes() -> list[NodeWithScore]:
    return [NodeWithScore(node=TextNode(text=text, id_=str(place)), score=0.5) for place, text in enumerate(TEXTS)]


@pytest.fixture
def client(url: str) -> Iterator[LycheeClient]:
    with LycheeClient(url) as connected:
        yield connected


@pytest.fixture(params=["sync", "async"])
def process(request: pytest.FixtureRequest) -> Process:
    """Call a postprocessor, and close it."""

    def blocking(reranker: LycheeRerank, nodes: list[NodeWithScore], **query: Any) -> list[NodeWithScore]:
        try:
            return reranker.postprocess_nodes(nodes, **(query or {"query_str": QUERY}))
        finally:
            reranker.close()

    async def awaited(reranker: LycheeRerank, nodes: list[NodeWithScore], **query: Any) -> list[NodeWithScore]:
        try:
            return await reranker.apostprocess_nodes(nodes, **(query or {"query_str": QUERY}))
        finally:
            await reranker.aclose()

    if request.param == "sync":
        return blocking
    return lambda *arguments, **query: asyncio.run(awaited(*arguments, **query))


@pytest.mark.parametrize("address", ["url", "gateway_url"])
def test_nodes_are_ranked_as_the_client_ranks(
    process: Process, client: LycheeClient, nodes: list[NodeWithScore], address: str, request: pytest.FixtureRequest
) -> None:
    ranked = process(LycheeRerank(url=request.getfixturevalue(address)), nodes)
    expected = client.rerank(QUERY, TEXTS).results
    assert [node.node_id for node in ranked] == [str(result.index) for result in expected]
    for node, result in zip(ranked, expected, strict=True):
        assert node.score == pytest.approx(result.relevance_score, abs=1e-5)
        assert node.metadata["relevance_score"] == node.score
        assert node.metadata["logit"] == pytest.approx(result.logit, abs=1e-3)
        assert node.metadata["decision"] == result.decision


def test_nodes_that_were_given_stay_as_they_are(process: Process, url: str, nodes: list[NodeWithScore]) -> None:
    before = copy.deepcopy(nodes)
    process(LycheeRerank(url=url), nodes)
    assert nodes == before


@pytest.mark.parametrize("mode", [MetadataMode.LLM, MetadataMode.EMBED])
def test_no_model_reads_the_scores(process: Process, url: str, nodes: list[NodeWithScore], mode: MetadataMode) -> None:
    for node in process(LycheeRerank(url=url), nodes):
        assert node.node.get_content(metadata_mode=mode) == TEXTS[int(node.node_id)]


def test_options_choose_what_is_returned(process: Process, url: str, nodes: list[NodeWithScore]) -> None:
    everything = process(LycheeRerank(url=url), nodes)
    assert [node.node_id for node in process(LycheeRerank(url=url, top_n=1), nodes)] == [everything[0].node_id]
    threshold = sum(node.get_score() for node in everything[1:]) / 2
    assert len(process(LycheeRerank(url=url, score_threshold=threshold), nodes)) == 2
    assert process(LycheeRerank(url=url), []) == []


def test_metadata_count_as_far_as_an_embedding_model_reads_them(
    process: Process, url: str, client: LycheeClient
) -> None:
    node = TextNode(text="sleeps", metadata={"animal": "a kitten"})
    (with_metadata,) = process(LycheeRerank(url=url), [NodeWithScore(node=node)])
    (without,) = process(LycheeRerank(url=url, metadata_mode=MetadataMode.NONE), [NodeWithScore(node=node)])
    text = node.get_content(metadata_mode=MetadataMode.EMBED)
    assert with_metadata.score == pytest.approx(client.score(QUERY, text), abs=1e-5)
    assert without.score == pytest.approx(client.score(QUERY, "sleeps"), abs=1e-5)


@pytest.mark.parametrize(
    "make",
    [
        lambda: ImageNode(image=base64.b64encode(PHOTO.read_bytes()).decode()),
        lambda: ImageNode(image_path=str(PHOTO), metadata={"file_name": "cat.jpg"}),
        lambda: ImageDocument(image_path=str(PHOTO)),
        lambda: ImageDocument(image=base64.b64encode(PHOTO.read_bytes()).decode()),
        lambda: Node(image_resource=MediaResource(data=PHOTO.read_bytes(), mimetype="image/jpeg")),
        lambda: Node(image_resource=MediaResource(path=PHOTO)),
        lambda: ImageNode(image_url=f"data:image/jpeg;base64,{base64.b64encode(PHOTO.read_bytes()).decode()}"),
    ],
    ids=["base64", "path", "document path", "document base64", "resource data", "resource path", "data URL"],
)
def test_images_are_ranked(process: Process, url: str, client: LycheeClient, make: Callable[[], Any]) -> None:
    (ranked,) = process(LycheeRerank(url=url), [NodeWithScore(node=make())])
    assert ranked.score == pytest.approx(client.score(QUERY, Image.from_path(PHOTO)), abs=1e-5)


def test_image_and_text_count_together(process: Process, url: str, client: LycheeClient) -> None:
    node = ImageNode(image_path=str(PHOTO), text="two years old")
    (ranked,) = process(LycheeRerank(url=url), [NodeWithScore(node=node)])
    both = ImageText(Image.from_path(PHOTO), "two years old")
    assert ranked.score == pytest.approx(client.score(QUERY, both), abs=1e-5)


def test_query_may_have_an_image(process: Process, url: str, client: LycheeClient, nodes: list[NodeWithScore]) -> None:
    ranked = process(LycheeRerank(url=url, top_n=1), nodes, query_bundle=QueryBundle("", image_path=str(PHOTO)))
    expected = client.rerank(Image.from_path(PHOTO), TEXTS, top_n=1).results[0]
    assert (ranked[0].node_id, ranked[0].score) == (
        str(expected.index),
        pytest.approx(expected.relevance_score, abs=1e-5),
    )


def test_node_that_cannot_be_ranked_is_dropped_and_named(
    process: Process, url: str, nodes: list[NodeWithScore]
) -> None:
    broken = [
        NodeWithScore(node=ImageNode(image_url="https://example.com/a.png", id_="far")),
        NodeWithScore(node=TextNode(text="", id_="empty")),
        NodeWithScore(node=ImageNode(image="not base64", id_="odd")),
    ]
    with pytest.warns(LycheeWarning, match=r"of 6 documents, 3 .*0 \(far\): .*; document 4 \(empty\): .*5 \(odd\)"):
        ranked = process(LycheeRerank(url=url), [broken[0], *nodes, *broken[1:]])
    assert {node.node_id for node in ranked} == {"0", "1", "2"}
    with pytest.raises(InvalidInputError, match=r"document 0 .*downloaded"):
        process(LycheeRerank(url=url, on_error="raise"), [broken[0], *nodes])


def test_query_is_required(process: Process, url: str, nodes: list[NodeWithScore]) -> None:
    with pytest.raises(ValueError, match="no query"):
        process(LycheeRerank(url=url), nodes, query_bundle=None)


def test_events_tell_of_the_ranking(process: Process, url: str, nodes: list[NodeWithScore]) -> None:
    seen: list[Any] = []

    class Handler(BaseEventHandler):
        def handle(self, event: Any, **kwargs: Any) -> None:
            seen.append(event)

    handler = Handler()
    root = get_dispatcher()
    root.add_event_handler(handler)
    try:
        ranked = process(LycheeRerank(url=url, top_n=2), nodes)
    finally:
        root.event_handlers.remove(handler)
    events = {event.class_name(): event for event in seen}
    assert events["ReRankStartEvent"].top_n == 2
    assert len(events["ReRankEndEvent"].nodes) == len(ranked) == 2


def test_postprocessor_is_one_of_llama_indexs_and_can_be_stored(url: str, nodes: list[NodeWithScore]) -> None:
    reranker = LycheeRerank(url=url, top_n=1, policy="strict", headers={"x-tenant": "a"})
    assert isinstance(reranker, BaseNodePostprocessor)
    expected = reranker.postprocess_nodes(nodes, query_str=QUERY)
    stored = [LycheeRerank.from_dict(reranker.to_dict()), pickle.loads(pickle.dumps(reranker)), copy.deepcopy(reranker)]
    for again in stored:
        assert (again.url, again.top_n, again.policy, again.headers) == (url, 1, "strict", {"x-tenant": "a"})
        assert [node.node_id for node in again.postprocess_nodes(nodes, query_str=QUERY)] == [expected[0].node_id]
        again.close()
    reranker.close()

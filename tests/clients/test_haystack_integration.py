"""The ranker for Haystack, with the real Haystack and a real server."""

from __future__ import annotations

import asyncio
import copy
import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from haystack import Document, Pipeline
from haystack.components.builders import PromptBuilder
from haystack.dataclasses import ByteStream
from haystack.utils import Secret
from lychee_client import Calibration, Image, ImageText, InvalidInputError, LycheeClient, LycheeWarning, Policy
from lychee_client.integrations.haystack import LycheeRanker
from lychee_client.score_mapping import PlattMapping

PHOTO = Path(__file__).parents[2] / "examples" / "catalogue" / "photos" / "cat.jpg"
QUERY = "a cat"
TEXTS = ["a cup of coffee", "小猫", "a kitten sleeps on the sofa"]

Run = Callable[..., list[Document]]


def ids(documents: Sequence[Document]) -> list[str]:
    return [document.id for document in documents]


@pytest.fixture
def documents() -> list[Document]:
    return [Document(id=str(place), content=text, meta={"page": place}) for place, text in enumerate(TEXTS)]


@pytest.fixture
def client(url: str) -> Iterator[LycheeClient]:
    with LycheeClient(url) as connected:
        yield connected


@pytest.fixture(params=["sync", "async"])
def run(request: pytest.FixtureRequest) -> Run:
    """Run a ranker, and close it."""

    def blocking(ranker: LycheeRanker, documents: list[Document], **options: Any) -> list[Document]:
        try:
            return ranker.run(QUERY, documents, **options)["documents"]
        finally:
            ranker.close()

    async def awaited(ranker: LycheeRanker, documents: list[Document], **options: Any) -> list[Document]:
        try:
            return (await ranker.run_async(QUERY, documents, **options))["documents"]
        finally:
            await ranker.close_async()

    if request.param == "sync":
        return blocking
    return lambda *arguments, **options: asyncio.run(awaited(*arguments, **options))


@pytest.mark.parametrize("address", ["url", "gateway_url"])
def test_documents_are_ranked_as_the_client_ranks(
    run: Run, client: LycheeClient, documents: list[Document], address: str, request: pytest.FixtureRequest
) -> None:
    ranked = run(LycheeRanker(request.getfixturevalue(address)), documents)
    expected = client.rerank(QUERY, TEXTS).results
    assert ids(ranked) == [str(result.index) for result in expected]
    for document, result in zip(ranked, expected, strict=True):
        assert document.score == pytest.approx(result.relevance_score, abs=1e-5)
        assert document.meta["logit"] == pytest.approx(result.logit, abs=1e-3)
        assert (document.meta["decision"], document.meta["page"]) == (result.decision, result.index)


def test_documents_that_were_given_stay_as_they_are(run: Run, url: str, documents: list[Document]) -> None:
    before = copy.deepcopy(documents)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Haystack warns of documents that are changed in place
        run(LycheeRanker(url), documents)
    assert documents == before


def test_options_choose_what_is_returned(run: Run, url: str, documents: list[Document]) -> None:
    everything = run(LycheeRanker(url), documents)
    assert ids(run(LycheeRanker(url, top_k=1), documents)) == ids(everything[:1])
    assert ids(run(LycheeRanker(url, top_k=1), documents, top_k=2)) == ids(everything[:2])
    threshold = sum(document.score for document in everything[1:]) / 2
    assert ids(run(LycheeRanker(url, score_threshold=threshold), documents)) == ids(everything[:2])
    assert run(LycheeRanker(url, score_threshold=0.0), documents, score_threshold=1.0) == []
    assert run(LycheeRanker(url), []) == []


def test_fields_of_meta_stand_before_the_text(run: Run, url: str, client: LycheeClient) -> None:
    document = Document(content="sleeps", meta={"animal": "a kitten", "empty": None})
    ranker = LycheeRanker(url, meta_fields_to_embed=["animal", "empty", "absent"], embedding_separator=" ")
    assert run(ranker, [document])[0].score == pytest.approx(client.score(QUERY, "a kitten sleeps"), abs=1e-5)


def test_images_are_ranked_and_other_files_are_not(run: Run, url: str, client: LycheeClient) -> None:
    blob = ByteStream(PHOTO.read_bytes(), mime_type="image/jpeg")
    documents = [
        Document(id="image", blob=blob),
        Document(id="both", blob=blob, content="two years old"),
        Document(id="untyped", blob=ByteStream(PHOTO.read_bytes())),
        Document(id="text", blob=ByteStream(b"%PDF", mime_type="application/pdf"), content="小猫"),
    ]
    scores = {document.id: document.score for document in run(LycheeRanker(url), documents)}
    image = Image.from_path(PHOTO)
    expected = {"image": image, "both": ImageText(image, "two years old"), "untyped": image, "text": "小猫"}
    assert scores == {
        name: pytest.approx(client.score(QUERY, document), abs=1e-5) for name, document in expected.items()
    }


def test_document_that_cannot_be_ranked_is_dropped_and_named(run: Run, url: str, documents: list[Document]) -> None:
    broken = Document(id="broken", blob=ByteStream(b"no image", mime_type="image/png"))
    with pytest.warns(LycheeWarning, match=r"of 5 documents, 2 .*document 0 \(broken\): .*; document 4 \(blank\)"):
        ranked = run(LycheeRanker(url), [broken, *documents, Document(id="blank", content="")])
    assert {document.id for document in ranked} == {"0", "1", "2"}
    with pytest.raises(InvalidInputError, match=r"document 0 \(broken\)"):
        run(LycheeRanker(url, on_error="raise"), [broken, *documents])


def test_pipeline_is_stored_and_runs(url: str, documents: list[Document]) -> None:
    pipeline = Pipeline()
    pipeline.add_component("ranker", LycheeRanker(url, top_k=1))
    pipeline.add_component("prompt", PromptBuilder("{% for d in documents %}{{ d.content }}{% endfor %}"))
    pipeline.connect("ranker.documents", "prompt.documents")
    again = Pipeline.loads(pipeline.dumps(), allowed_modules=["lychee_client.integrations.haystack"])
    for one in (pipeline, again):
        answer = one.run({"ranker": {"query": QUERY, "documents": documents}})
        assert answer["prompt"]["prompt"] in ("小猫", "a kitten sleeps on the sofa")
        one.close()


def test_asynchronous_pipeline_awaits_the_ranker(
    url: str, documents: list[Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    ranker = LycheeRanker(url, top_k=1)
    monkeypatch.setattr(ranker._reranker, "rank", None)

    async def run() -> Any:
        pipeline = Pipeline()
        pipeline.add_component("ranker", ranker)
        try:
            return await pipeline.run_async({"ranker": {"query": QUERY, "documents": documents}})
        finally:
            await ranker.close_async()

    assert len(asyncio.run(run())["ranker"]["documents"]) == 1


def test_every_argument_is_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THE_KEY", "secret")
    arguments: dict[str, Any] = {
        "url": "http://localhost:7860",
        "api_key": Secret.from_env_var("THE_KEY"),
        "headers": {"x-tenant": "a"},
        "timeout_s": 5.0,
        "policy": Policy("mine", accept=0.5, review=0.25),
        "top_k": 3,
        "score_threshold": 0.5,
        "instruction": "Find pets.",
        "meta_fields_to_embed": ["title"],
        "embedding_separator": " ",
        "on_error": "raise",
        "model": "products",
    }
    stored = LycheeRanker(**arguments).to_dict()
    assert "secret" not in json.dumps(stored)
    assert stored["init_parameters"].keys() == arguments.keys()
    again = LycheeRanker.from_dict(copy.deepcopy(stored))
    assert again.to_dict() == stored
    assert {name: getattr(again, name) for name in arguments} == arguments
    assert again._reranker.headers == {"Authorization": "Bearer secret", "x-tenant": "a"}


def test_calibration_is_stored_as_the_policy(url: str, client: LycheeClient, documents: list[Document]) -> None:
    calibration = Calibration(
        created_at="2026-11-22T09:30:00Z",
        client_version="0.1.0",
        model=client.manifest().identity,
        instruction=None,
        target="f1",
        threshold=0.9,
        threshold_low=0.8,
        threshold_high=0.95,
        confidence=0.95,
        review_threshold=0.5,
        precision=0.9,
        recall=0.9,
        f1=0.9,
        pairs=60,
        positives=30,
        queries=12,
        mapping=PlattMapping(1.0, 0.0),
        data_sha256="0" * 64,
    )
    stored = json.loads(json.dumps(LycheeRanker(url, policy=calibration).to_dict()))
    again = LycheeRanker.from_dict(stored)
    assert again.policy == calibration
    decisions = {document.id: document.meta["decision"] for document in again.run(QUERY, documents)["documents"]}
    assert decisions == {"0": "reject", "1": "accept", "2": "review"}
    again.close()


def test_ranker_with_a_ready_client_is_not_stored(client: LycheeClient) -> None:
    with pytest.raises(ValueError, match="ready client"):
        LycheeRanker(client=client).to_dict()

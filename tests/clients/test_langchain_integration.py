"""The compressor for LangChain, with the real LangChain and a real server."""

from __future__ import annotations

import asyncio
import copy
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import BaseDocumentCompressor, Document
from lychee_client import (
    AsyncLycheeClient,
    ConfigurationError,
    Image,
    InvalidInputError,
    LycheeClient,
    LycheeWarning,
    Policy,
)
from lychee_client.integrations.langchain import LycheeRerank

PHOTOS = Path(__file__).parents[2] / "examples" / "catalogue" / "photos"
QUERY = "a cat"
TEXTS = ["a cup of coffee", "小猫", "a kitten sleeps on the sofa"]

Compress = Callable[..., list[Document]]


def ids(documents: Sequence[Document]) -> list[str | None]:
    return [document.id for document in documents]


@pytest.fixture
def documents() -> list[Document]:
    return [Document(text, id=str(place), metadata={"source": f"{place}.txt"}) for place, text in enumerate(TEXTS)]


@pytest.fixture
def client(url: str) -> Iterator[LycheeClient]:
    with LycheeClient(url) as connected:
        yield connected


@pytest.fixture(params=["sync", "async"])
def compress(request: pytest.FixtureRequest) -> Compress:
    """Call a compressor, and close it."""

    def blocking(compressor: LycheeRerank, documents: list[Document], query: str = QUERY) -> list[Document]:
        try:
            return list(compressor.compress_documents(documents, query))
        finally:
            compressor.close()

    async def awaited(compressor: LycheeRerank, documents: list[Document], query: str = QUERY) -> list[Document]:
        try:
            return list(await compressor.acompress_documents(documents, query))
        finally:
            await compressor.aclose()

    if request.param == "sync":
        return blocking
    return lambda *arguments: asyncio.run(awaited(*arguments))


@pytest.mark.parametrize("address", ["url", "gateway_url"])
def test_documents_are_ranked_as_the_client_ranks(
    compress: Compress,
    client: LycheeClient,
    documents: list[Document],
    address: str,
    request: pytest.FixtureRequest,
) -> None:
    ranked = compress(LycheeRerank(url=request.getfixturevalue(address)), documents)
    expected = client.rerank(QUERY, TEXTS).results
    assert ids(ranked) == [str(result.index) for result in expected]
    for document, result in zip(ranked, expected, strict=True):
        assert document.page_content == TEXTS[result.index]
        assert document.metadata["source"] == f"{result.index}.txt"
        assert document.metadata["relevance_score"] == pytest.approx(result.relevance_score, abs=1e-5)
        assert document.metadata["logit"] == pytest.approx(result.logit, abs=1e-3)
        assert document.metadata["decision"] == result.decision


def test_documents_that_were_given_stay_as_they_are(compress: Compress, url: str, documents: list[Document]) -> None:
    before = copy.deepcopy(documents)
    compress(LycheeRerank(url=url), documents)
    assert documents == before


def test_options_choose_what_is_returned(compress: Compress, url: str, documents: list[Document]) -> None:
    everything = compress(LycheeRerank(url=url), documents)
    assert ids(compress(LycheeRerank(url=url, top_n=1), documents)) == ids(everything[:1])
    threshold = sum(document.metadata["relevance_score"] for document in everything[1:]) / 2
    assert ids(compress(LycheeRerank(url=url, score_threshold=threshold), documents)) == ids(everything[:2])
    strict = compress(LycheeRerank(url=url, policy=Policy("all", accept=0.0, review=0.0)), documents)
    assert {document.metadata["decision"] for document in strict} == {"accept"}
    assert compress(LycheeRerank(url=url), []) == []


def test_metadata_may_hold_the_image(compress: Compress, url: str, client: LycheeClient) -> None:
    photo = PHOTOS / "cat.jpg"
    images: list[Any] = [str(photo), photo.read_bytes()]
    documents = [Document("", metadata={"image": image}) for image in images]
    documents += [Document("a kitten", metadata={"image": photo}), Document("a cup of coffee")]
    ranked = compress(LycheeRerank(url=url, image_key="image"), documents)
    scores = [document.metadata["relevance_score"] for document in ranked]
    assert sorted(scores, reverse=True) == scores
    alone = client.score(QUERY, Image.from_path(photo))
    assert sum(score == pytest.approx(alone, abs=1e-5) for score in scores) == 2
    assert ranked[-1].page_content == "a cup of coffee"


def test_document_that_cannot_be_ranked_is_dropped_and_named(
    compress: Compress, url: str, documents: list[Document]
) -> None:
    broken = Document("", id="broken.png", metadata={"image": "https://example.com/broken.png"})
    with pytest.warns(LycheeWarning, match=r"of 5 documents, 2 .*document 1 \(broken.png\): .*downloaded.*document 4"):
        ranked = compress(
            LycheeRerank(url=url, image_key="image"), [documents[0], broken, *documents[1:], Document("")]
        )
    assert {document.id for document in ranked} == {"0", "1", "2"}
    assert ranked[0].page_content != "a cup of coffee"


def test_document_that_cannot_be_ranked_is_raised_where_asked(
    compress: Compress, url: str, documents: list[Document]
) -> None:
    with pytest.raises(InvalidInputError, match=r"document 3: .*empty") as caught:
        compress(LycheeRerank(url=url, on_error="raise"), [*documents, Document("")])
    assert caught.value.index == 3


def test_ready_clients_are_used_and_stay_open(url: str, client: LycheeClient, documents: list[Document]) -> None:
    async def rank_asynchronously() -> None:
        async with AsyncLycheeClient(url) as ready:
            compressor = LycheeRerank(client=ready)
            assert ids(await compressor.acompress_documents(documents, QUERY)) == expected
            await compressor.aclose()
            assert ids(await compressor.acompress_documents(documents, QUERY)) == expected
            with pytest.raises(ConfigurationError, match="AsyncLycheeClient"):
                compressor.compress_documents(documents, QUERY)

    compressor = LycheeRerank(client=client)
    expected = ids(compressor.compress_documents(documents, QUERY))
    compressor.close()
    assert ids(asyncio.run(compressor.acompress_documents(documents, QUERY))) == expected
    asyncio.run(rank_asynchronously())


def test_arguments_that_do_not_fit_are_refused(url: str, client: LycheeClient) -> None:
    with pytest.raises(ValueError, match="client is given together with url"):
        LycheeRerank(url=url, client=client)
    with pytest.raises(ValueError, match="on_error"):
        LycheeRerank(url=url, on_error="ignore")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="topn"):
        LycheeRerank(url=url, topn=1)  # type: ignore[call-arg]


def test_compressor_is_one_of_langchains_and_can_be_copied(url: str, documents: list[Document]) -> None:
    compressor = LycheeRerank(url=url, headers={"Authorization": "Bearer secret"}, top_n=1)
    assert isinstance(compressor, BaseDocumentCompressor)
    assert "secret" not in repr(compressor)
    expected = compressor.compress_documents(documents, QUERY)
    again = copy.deepcopy(compressor)
    assert ids(again.compress_documents(documents, QUERY)) == ids(expected)
    compressor.close()
    again.close()


@pytest.mark.parametrize("asynchronous", [False, True])
def test_program_that_closes_nothing_ends_in_silence(gateway_url: str, asynchronous: bool) -> None:
    call = f"LycheeRerank(url={gateway_url!r}).{'a' * asynchronous}compress_documents([Document('a kitten')], 'a cat')"
    code = (
        "import asyncio\n"
        "from langchain_core.documents import Document\n"
        "from lychee_client.integrations.langchain import LycheeRerank\n"
        f"print(len({f'asyncio.run({call})' if asynchronous else call}))"
    )
    command = [sys.executable, "-W", "default::ResourceWarning", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("1\n", "")

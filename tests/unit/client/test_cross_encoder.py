"""Cross-encoders on the fake transport, synchronous and asynchronous: pairs in, scores out, requests between."""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import PIL.Image
import pytest
from fakes.cross_encoder import IMAGE_TOKEN_ID, PATCHES_MANIFEST, STRETCH_MANIFEST
from fakes.dual_encoder import FakeTransport
from lychee_client import (
    AsyncLycheeClient,
    ContractError,
    Image,
    Images,
    ImageText,
    InferenceError,
    InvalidInputError,
    LycheeClient,
    LycheeError,
    LycheeWarning,
    RequestRejectedError,
    RerankResponse,
)
from lychee_client.instructions import bundled_instructions
from lychee_client.transports.base import InferRequest, InferResponse, Request

# Patches of 14 pixels, of which 4 become one token; at most 112 x 112 pixels.
WIDE, TALL, SQUARE = (112, 56), (56, 112), (112, 112)
Rerank = Callable[..., RerankResponse]


def noise(size: tuple[int, int] = SQUARE, seed: int = 0) -> Image:
    return Image.from_numpy(np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), np.uint8))


def damaged() -> Image:
    return Image.from_bytes(b"no image")


def changed(base: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    """Return a manifest with keys changed, "prompt__template" being a key within a key."""
    data = {key: dict(value) if isinstance(value, dict) else value for key, value in base.items()}
    for path, value in changes.items():
        key, _, inner = path.partition("__")
        if inner:
            data[key][inner] = value
        else:
            data[key] = value
    return data


@pytest.fixture
def transport() -> FakeTransport:
    return FakeTransport(manifest=PATCHES_MANIFEST)


@pytest.fixture
def stretch_transport() -> FakeTransport:
    return FakeTransport(manifest=STRETCH_MANIFEST)


def rerank_on(transport: FakeTransport, is_async: bool) -> Rerank:
    def rerank(query: object, documents: Sequence[object], **options: Any) -> RerankResponse:
        if not is_async:
            return LycheeClient(transport=transport).rerank(query, documents, **options)  # type: ignore[arg-type]

        async def call() -> RerankResponse:
            return await AsyncLycheeClient(transport=transport).rerank(query, documents, **options)  # type: ignore[arg-type]

        return asyncio.run(call())

    return rerank


@pytest.fixture(params=["sync", "async"])
def rerank(transport: FakeTransport, request: pytest.FixtureRequest) -> Rerank:
    return rerank_on(transport, request.param == "async")


@pytest.fixture(params=["sync", "async"])
def rerank_stretched(stretch_transport: FakeTransport, request: pytest.FixtureRequest) -> Rerank:
    return rerank_on(stretch_transport, request.param == "async")


def sent(transport: FakeTransport, model_name: str) -> list[InferRequest]:
    requests = [request for request in transport.requests if isinstance(request, InferRequest)]
    return [request for request in requests if request.model_name == model_name]


def message_of(response: RerankResponse, index: int) -> str:
    (error,) = [error for error in response.errors if error.index == index]
    assert isinstance(error.error, InvalidInputError)
    assert error.error.index == index
    return error.message


QUERIES = {"text": "red", "image": noise(TALL, 7), "image and text": ImageText(noise(WIDE, 8), "red")}


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
def test_each_document_gets_the_score_it_has_alone(rerank: Rerank, query: object) -> None:
    documents: list[object] = [
        letter * length for letter, length in zip("abcdefg", (1, 40, 9, 30, 2, 60, 3), strict=True)
    ]
    documents += [noise(), ImageText(noise(WIDE, 1), "wide"), noise(TALL, 2), ImageText(noise(seed=3), "一只猫")]
    response = rerank(query, documents)
    assert response.errors == ()
    together = {result.index: result.relevance_score for result in response.results}
    alone = {index: rerank(query, [document]).results[0].relevance_score for index, document in enumerate(documents)}
    assert together == alone
    assert len(set(together.values())) == len(documents)
    assert [result.relevance_score for result in response.results] == sorted(together.values(), reverse=True)


def test_texts_are_grouped_by_bucket_and_sent_with_one_row_of_no_image(
    rerank: Rerank, transport: FakeTransport
) -> None:
    rerank("q", ["short"] * 6 + ["l" * 60] * 3)
    requests = sent(transport, "rerank_text")
    assert [request.inputs["input_ids"].shape for request in requests] == [(4, 64), (2, 64), (3, 128)]
    for request in requests:
        rows = request.rows
        assert request.outputs == ("relevance_score", "logits")
        assert (request.inputs["image_embeds"].shape, request.inputs["image_embeds"].dtype) == (
            (rows, 1, 6),
            np.float32,
        )
        assert (request.inputs["image_grid_thw"].shape, request.inputs["image_grid_thw"].dtype) == (
            (rows, 2, 3),
            np.int64,
        )
        assert not request.inputs["image_embeds"].any()
        assert not request.inputs["image_grid_thw"].any()
    assert sent(transport, "rerank_image") == []


def test_pair_with_images_is_one_request_padded_to_a_bucket(rerank: Rerank, transport: FakeTransport) -> None:
    response = rerank("q", [ImageText(noise(WIDE), "text"), noise(SQUARE)])
    wide, square = sent(transport, "rerank_image")
    assert wide.inputs["image_grid_thw"].tolist() == [[[1, 4, 8], [0, 0, 0]]]
    assert wide.inputs["pixel_values"].shape == (1, 32, 588)
    assert square.inputs["image_grid_thw"].tolist() == [[[1, 8, 8], [0, 0, 0]]]
    assert (square.inputs["pixel_values"].shape, square.inputs["pixel_values"].dtype) == ((1, 64, 588), np.uint8)
    assert np.count_nonzero(square.inputs["input_ids"] == IMAGE_TOKEN_ID) == 16
    results = {result.index: result for result in response.results}
    assert (results[0].modality, results[0].image_tokens, results[0].image_resized_to) == ("image_text", 8, WIDE)
    assert (results[1].modality, results[1].image_tokens, results[1].image_size) == ("image", 16, SQUARE)


def test_fewer_patches_than_the_bucket_leave_zeros(rerank: Rerank, transport: FakeTransport) -> None:
    rerank(noise((84, 56)), [noise((56, 56)), "text"])
    pair, text = sent(transport, "rerank_image")
    assert pair.inputs["image_grid_thw"].tolist() == [[[1, 4, 6], [1, 4, 4]]]
    assert pair.inputs["pixel_values"].shape == (1, 64, 588)
    assert pair.inputs["pixel_values"][0, 39].any()
    assert not pair.inputs["pixel_values"][0, 40:].any()
    assert text.inputs["image_grid_thw"].tolist() == [[[1, 4, 6], [0, 0, 0]]]


@pytest.mark.parametrize(
    ("template", "grids"),
    [
        ("{instruction}{query}|{document}", [[1, 8, 4], [1, 4, 8]]),
        ("{instruction}{document}|{query}", [[1, 4, 8], [1, 8, 4]]),
    ],
)
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_images_are_in_the_order_of_the_template(template: str, grids: list[list[int]], is_async: bool) -> None:
    transport = FakeTransport(manifest=changed(PATCHES_MANIFEST, prompt__template=template))
    query, document = noise(TALL, 1), noise(WIDE, 2)
    response = rerank_on(transport, is_async)(query, [document])
    (request,) = sent(transport, "rerank_image")
    assert request.inputs["image_grid_thw"][0].tolist() == grids
    (result,) = response.results
    assert result.image_resized_to == WIDE
    first, second = ((query, document), (document, query))[template.index("{document}") < template.index("{query}")]
    spec = LycheeClient(transport=transport).manifest().image
    patches = np.concatenate([image.prepare(spec).pixel_values for image in (first, second)])
    np.testing.assert_array_equal(request.inputs["pixel_values"][0], patches)


@pytest.mark.parametrize("template", ["{instruction}{query}|{document}", "{instruction}{document}|{query}"])
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_several_images_stand_in_their_order_before_the_text(template: str, is_async: bool) -> None:
    buckets = [32, 64, 128, 256]
    manifest = changed(PATCHES_MANIFEST, prompt__template=template, image__max_images=4, image__buckets=buckets)
    transport = FakeTransport(manifest=manifest)
    query = ImageText(noise((56, 56), 1), "q")
    wide, tall, square = noise(WIDE, 2), noise(TALL, 3), noise(SQUARE, 4)
    documents = [ImageText(Images([wide, tall, square]), "d"), "d", Images([tall, wide]), wide]
    response = rerank_on(transport, is_async)(query, documents)
    assert response.errors == ()
    requests = sent(transport, "rerank_image")
    of_query: list[list[int]] = [[1, 4, 4]]
    of_documents = [[[1, 4, 8], [1, 8, 4], [1, 8, 8]], [], [[1, 8, 4], [1, 4, 8]], [[1, 4, 8]]]
    for request, grids in zip(requests, of_documents, strict=True):
        ordered = of_query + grids if template.index("{query}") < template.index("{document}") else grids + of_query
        assert request.inputs["image_grid_thw"].tolist() == [ordered + [[0, 0, 0]] * (4 - len(ordered))]
    result = next(result for result in response.results if result.index == 0)
    assert (result.modality, result.image_size, result.image_resized_to, result.image_tokens) == (
        "image_text",
        WIDE,
        WIDE,
        8 + 8 + 16,
    )
    assert next(result for result in response.results if result.index == 2).modality == "image"
    scores = {result.index: result.relevance_score for result in response.results}
    turned = rerank_on(transport, is_async)(query, [ImageText(Images([tall, wide, square]), "d")])
    assert turned.results[0].relevance_score != scores[0]


def test_tokens_are_those_of_the_whole_pair(rerank: Rerank) -> None:
    results = {result.index: result for result in rerank("q", ["d", "d" * 500, noise()], instruction="i").results}
    assert [results[index].tokens for index in range(3)] == [13, 256, 12 + 2 + 16]
    assert [results[index].truncated for index in range(3)] == [False, True, False]
    assert [results[index].image_tokens for index in range(3)] == [None, None, 16]


def test_instruction_stands_in_the_prompt(rerank: Rerank, transport: FakeTransport) -> None:
    default, other = rerank("q", ["d"]), rerank("q", ["d"], instruction="Find another.")
    assert (default.instruction, other.instruction) == ("Find it.", "Find another.")
    first, second = sent(transport, "rerank_text")
    assert first.inputs["attention_mask"].sum() + len("another") - len("it") == second.inputs["attention_mask"].sum()
    assert default.results[0].relevance_score != other.results[0].relevance_score


@pytest.mark.parametrize("instruction", ["Retrieve only perfect matches", "只返回完全匹配的结果"])
def test_an_instruction_that_changes_what_a_score_means_is_warned_about(rerank: Rerank, instruction: str) -> None:
    with pytest.warns(LycheeWarning, match="the instruction changes what a score means"):
        (warning,) = rerank("q", ["d", "e"], instruction=instruction).warnings
    assert "policy 'strict'" in warning  # what to do instead


def test_no_named_instruction_and_no_default_is_warned_about(rerank: Rerank) -> None:
    texts = [text for template in bundled_instructions().values() for text in template.texts.values()]
    assert len(texts) == 2 * len(bundled_instructions()) - 2  # both languages of all but the model's own
    assert not any(rerank("q", ["d"], instruction=text).warnings for text in [*texts, "Find it.", None])


def test_instruction_for_a_template_without_a_place_is_warned_about(rerank_stretched: Rerank) -> None:
    with pytest.warns(LycheeWarning, match="reads no instruction"):
        response = rerank_stretched("q", [noise()], instruction="Retrieve only perfect matches")
    assert response.instruction is None
    assert len(response.warnings) == 1  # what is not read changes nothing


def test_timings_have_no_query_embedding(rerank: Rerank) -> None:
    timings = rerank("q", ["d", noise()]).timings
    assert timings.encode_query_ms == 0
    assert 0 < timings.preprocess_ms <= timings.total_ms
    assert 0 < timings.score_documents_ms <= timings.total_ms


def test_documents_that_cannot_be_read_are_errors_of_their_own(rerank: Rerank, transport: FakeTransport) -> None:
    response = rerank("q", ["good", "", damaged(), ImageText(damaged(), "text"), 3, noise((900, 2))])
    assert [result.index for result in response.results] == [0]
    assert "the text is empty" in message_of(response, 1)
    assert "not a readable image" in message_of(response, 2)
    assert "not a readable image" in message_of(response, 3)
    assert "got a int" in message_of(response, 4)
    assert "at most 200 times" in message_of(response, 5)


def test_no_usable_document_sends_nothing(rerank: Rerank, transport: FakeTransport) -> None:
    assert [error.index for error in rerank("q", ["", " "]).errors] == [0, 1]
    assert {request.model_name for request in transport.requests if isinstance(request, InferRequest)} == {
        "client_assets"
    }


def test_unusable_query_fails_the_call(rerank: Rerank) -> None:
    with pytest.raises(InvalidInputError, match="not a readable image"):
        rerank(damaged(), ["d"])
    with pytest.raises(InvalidInputError, match="shorten the query"):
        rerank("q" * 300, ["d"])


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_more_images_than_the_model_reads_are_an_error_of_the_document(is_async: bool) -> None:
    transport = FakeTransport(manifest=changed(PATCHES_MANIFEST, image__max_images=1))
    response = rerank_on(transport, is_async)(noise(), ["text", noise(), ImageText(noise(), "text")])
    assert [result.index for result in response.results] == [0]
    for index in (1, 2):
        assert "query and document have 2 images, fake reads at most 1 per pair" in message_of(response, index)
        assert "--max-images 2" in message_of(response, index)


def test_more_images_in_the_query_than_the_model_reads_fail_the_call(rerank: Rerank, transport: FakeTransport) -> None:
    with pytest.raises(InvalidInputError, match=r"the query has 3 images, fake reads at most 2 .* --max-images 3"):
        rerank(Images([noise()] * 3), ["text"])
    response = rerank(Images([noise()] * 2), ["text", noise(), Images([noise()])])
    assert [result.index for result in response.results] == [0]
    assert "have 3 images" in message_of(response, 1)


def test_damaged_image_among_several_is_an_error_of_its_document(rerank: Rerank) -> None:
    response = rerank("q", [Images([noise(), damaged()]), noise(), Images([]), Images(["a"]), ImageText("a", "b")])  # type: ignore[list-item, arg-type]
    assert [result.index for result in response.results] == [1]
    assert "not a readable image" in message_of(response, 0)
    assert "Images holds nothing" in message_of(response, 2)
    assert "Images holds a str" in message_of(response, 3)
    assert "the image of an ImageText is a str, expected an Image or Images" in message_of(response, 4)


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_more_patches_than_the_largest_bucket_are_an_error(is_async: bool) -> None:
    """A long image has more pixels than max_pixels: its short edge is one block at least."""
    manifest = changed(PATCHES_MANIFEST, image__buckets=[32, 64], image__max_images=2)
    long = noise((1990, 10))
    rerank = rerank_on(FakeTransport(manifest=manifest), is_async)
    response = rerank("q", [long, "text", noise()])
    assert sorted(result.index for result in response.results) == [1, 2]
    assert "the model reads at most 64" in message_of(response, 0)
    assert [error.index for error in rerank(noise(), [noise((56, 56)), "text"]).errors] == [0]
    with pytest.raises(InvalidInputError, match="at most 64"):
        rerank(long, ["text"])


def test_image_tokens_that_do_not_fit_are_an_error_of_the_document(rerank: Rerank) -> None:
    query = "q" * 230  # leaves 15 tokens; a full image takes 18
    response = rerank(query, ["text", noise(), noise((56, 56))], instruction="i")
    assert sorted(result.index for result in response.results) == [0, 2]
    assert "the document does not fit" in message_of(response, 1)


def test_failed_batch_is_sent_again_row_by_row() -> None:
    def reject(request: Request) -> InferResponse | None:
        if isinstance(request, InferRequest) and request.model_name == "rerank_text":
            lengths = request.inputs["attention_mask"].sum(axis=1)
            if (lengths == 12 + len("Find it.") + 4 - 1).any():
                raise RequestRejectedError("a bad row", model_name="rerank_text")
        return None

    transport = FakeTransport(reject, PATCHES_MANIFEST)
    response = rerank_on(transport, False)("q", ["a", "bb", "four", "ccc"])
    assert [error.index for error in response.errors] == [2]
    assert sorted(result.index for result in response.results) == [0, 1, 3]
    assert [request.rows for request in sent(transport, "rerank_text")] == [4, 1, 1, 1, 1]


def test_refused_image_is_an_error_of_its_document() -> None:
    def fail(request: Request) -> InferResponse | None:
        grid = request.inputs.get("image_grid_thw") if isinstance(request, InferRequest) else None
        if grid is not None and grid[0, 0].tolist() == [1, 4, 8]:
            raise RequestRejectedError("it broke", model_name="rerank_image")
        return None

    response = rerank_on(FakeTransport(fail, PATCHES_MANIFEST), False)("q", ["text", noise(WIDE), noise()])
    assert [(error.index, type(error.error)) for error in response.errors] == [(1, RequestRejectedError)]
    assert sorted(result.index for result in response.results) == [0, 2]


@pytest.mark.parametrize("kind", [InferenceError, RequestRejectedError])
def test_ensemble_that_answers_nothing_is_no_documents_fault(kind: type[LycheeError]) -> None:
    def fail(request: Request) -> None:
        if isinstance(request, InferRequest) and request.model_name == "rerank_image":
            raise kind("its process has died", model_name="rerank_image")

    call = rerank_on(FakeTransport(fail, PATCHES_MANIFEST), False)
    with pytest.raises(kind, match="has died"):
        call("q", ["text", noise(), noise(WIDE)])
    assert len(call("q", ["text"]).results) == 1


def test_bulk_sends_one_text_at_a_time(rerank: Rerank, transport: FakeTransport) -> None:
    rerank("q", ["a", "bb", "ccc"], priority="bulk")
    assert [request.rows for request in sent(transport, "rerank_text")] == [1, 1, 1]


def test_missing_ensemble_is_a_contract_error() -> None:
    transport = FakeTransport(manifest=changed(PATCHES_MANIFEST, max_batch_size={"rerank_image": 2}))
    with pytest.raises(ContractError, match=r"max_batch_size\.rerank_text"):
        rerank_on(transport, False)("q", ["d"])


def test_images_beside_the_prompt(rerank_stretched: Rerank, stretch_transport: FakeTransport) -> None:
    response = rerank_stretched("a cat", [noise(), noise(WIDE, 1)])
    assert response.errors == ()
    requests = sent(stretch_transport, "rerank_image")
    assert [sorted(request.inputs) for request in requests] == [["attention_mask", "input_ids", "pixel_values"]] * 2
    assert {request.inputs["pixel_values"].shape for request in requests} == {(1, 3, 20, 30)}
    assert {request.inputs["input_ids"].shape for request in requests} == {(1, 16)}
    for result in response.results:
        assert (result.modality, result.tokens, result.image_tokens) == ("image", 5, None)
        assert result.image_resized_to == (30, 20)


def test_document_that_the_model_does_not_read_is_an_error_that_says_what_it_reads(rerank_stretched: Rerank) -> None:
    response = rerank_stretched("a cat", ["text", noise(), ImageText(noise(), "text")])
    assert [result.index for result in response.results] == [1]
    assert "fake reads only images as a document" in message_of(response, 0)
    assert "of the kind images with text" in message_of(response, 2)


@pytest.mark.parametrize("query", [noise(), ImageText(noise(), "text")], ids=["image", "image and text"])
def test_query_that_the_model_does_not_read_fails_the_call(
    rerank_stretched: Rerank, stretch_transport: FakeTransport, query: object
) -> None:
    with pytest.raises(InvalidInputError, match="fake reads only texts as a query"):
        rerank_stretched(query, [noise()])
    assert sent(stretch_transport, "rerank_image") == []


def test_fixed_size_reads_one_image_per_pair() -> None:
    manifest = changed(STRETCH_MANIFEST, prompt__queries=["text", "image"])
    response = rerank_on(FakeTransport(manifest=manifest), False)(noise(), [noise()])
    assert "2 images, fake reads at most 1" in message_of(response, 0)


def golden_pair(query: dict[str, str], document: dict[str, str], score: float) -> dict[str, Any]:
    return {"query": query, "document": document, "relevance_score": score}


def encode(image: PIL.Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def test_golden_pairs_with_images_on_both_sides_are_replayed_as_exported() -> None:
    """A smaller max_img_size changes scores, but says nothing about the server."""
    pictures = [PIL.Image.effect_noise(size, 90).convert("RGB") for size in (SQUARE, WIDE)]
    query, document = (encode(picture) for picture in pictures)
    images = [Image.from_pil(picture) for picture in pictures]
    client = LycheeClient(transport=FakeTransport(manifest=PATCHES_MANIFEST))
    scores = [client.score(images[0], images[1]), client.score(ImageText(images[0], "q"), "d"), client.score("q", "d")]
    pairs = [
        golden_pair({"image_png_base64": query}, {"image_png_base64": document}, scores[0]),
        golden_pair({"image_png_base64": query, "text": "q"}, {"text": "d"}, scores[1]),
        golden_pair({"text": "q"}, {"text": "d"}, scores[2]),
    ]
    manifest = PATCHES_MANIFEST | {"golden_pairs": {"tolerance": 1e-6, "pairs": pairs}}
    for max_img_size in (None, 60):
        checked = LycheeClient(transport=FakeTransport(manifest=manifest), max_img_size=max_img_size)
        report = checked.check_golden_pairs()
        assert (report.passed, report.max_abs_error, len(report.pairs)) == (True, 0.0, 3)
    small = LycheeClient(transport=FakeTransport(manifest=manifest), max_img_size=60)
    assert small.score(images[0], images[1]) != scores[0]


def test_golden_pair_that_cannot_be_scored_is_raised() -> None:
    pairs = [golden_pair({"text": "q"}, {"text": "d"}, 0.5)]
    manifest = STRETCH_MANIFEST | {"golden_pairs": {"tolerance": 1e-6, "pairs": pairs}}
    with pytest.raises(InvalidInputError, match="reads only images"):
        LycheeClient(transport=FakeTransport(manifest=manifest)).check_golden_pairs()


def test_wait_until_ready_asks_for_the_models_of_a_cross_encoder(transport: FakeTransport) -> None:
    client = LycheeClient(transport=transport)
    client.wait_until_ready(1.0)
    assert client.server_status().ready

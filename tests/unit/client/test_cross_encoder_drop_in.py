"""CrossEncoder, the class that is called like sentence-transformers', on the fake transport."""

from __future__ import annotations

import gc
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from fakes.dual_encoder import FakeTransport
from lychee_client import (
    ConfigurationError,
    ConnectionFailedError,
    CrossEncoder,
    Image,
    ImageText,
    InvalidInputError,
    LycheeClient,
    LycheeWarning,
)
from lychee_client._cross_encoder import pairs
from lychee_client.transports.base import InferRequest, Request

BLUE = PIL.Image.new("RGB", (60, 30), (9, 9, 200))
INSTRUCTION = {"default": "Find it.", "query_prefix": "Instruct: {instruction}\nQuery: "}


@pytest.fixture
def model(client: LycheeClient) -> CrossEncoder:
    return CrossEncoder(client=client)


@pytest.fixture
def asked(client: LycheeClient, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, Any, Any]]:
    """Record query, documents and instruction of every call."""
    calls: list[tuple[Any, Any, Any]] = []
    rerank_many = client.rerank_many

    def record(asked: Any, **options: Any) -> Iterator[Any]:
        listed = list(asked)
        calls.extend((query, documents, options["instruction"]) for query, documents in listed)
        return rerank_many(listed, **options)

    monkeypatch.setattr(client, "rerank_many", record)
    return calls


def test_scores_are_the_clients_in_the_order_of_the_pairs(model: CrossEncoder, client: LycheeClient) -> None:
    given = [("aaaa", "zzzz"), ("bbbb", "bbbb"), ("aaaa", "aaaa"), ("bbbb", "azaz"), ("aaaa", BLUE)]
    scores = model.predict(given)
    expected = [client.score(query, document) for query, document in given[:4]]
    assert scores == pytest.approx([*expected, client.score("aaaa", Image.from_pil(BLUE))], abs=1e-6)
    assert (scores.dtype, scores.shape) == (np.float32, (5,))


def test_logits_are_in_the_order_of_the_pairs_too(model: CrossEncoder) -> None:
    given = [("aaaa", "zzzz"), ("bbbb", "bbbb"), ("aaaa", "aaaa")]
    logits = model.predict(given, activation_fn="identity")
    assert 1 / (1 + np.exp(-logits)) == pytest.approx(model.predict(given), abs=1e-6)


def test_pairs_of_one_query_travel_in_one_call(model: CrossEncoder, asked: list[Any]) -> None:
    photo = Image.from_pil(BLUE)
    model.predict([("a", "1"), (photo, "2"), ("b", "3"), ("a", "4"), (photo, "5")])
    assert asked == [("a", ["1", "4"], None), (photo, ["2", "5"], None), ("b", ["3"], None)]


def test_a_long_list_is_split_where_a_gateway_would_refuse_it(
    model: CrossEncoder, asked: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = model.predict([("a", letter) for letter in "abcde"])
    monkeypatch.setattr(pairs, "MOST_DOCUMENTS", 2)
    assert model.predict([("a", letter) for letter in "abcde"]) == pytest.approx(whole)
    assert [documents for _, documents, _ in asked[1:]] == [["a", "b"], ["c", "d"], ["e"]]


@pytest.mark.parametrize("pair", [("aaaa", "aazz"), ["aaaa", "aazz"], np.array(["aaaa", "aazz"])])
def test_one_pair_gives_one_number(model: CrossEncoder, pair: Any) -> None:
    score = model.predict(pair)
    assert isinstance(score, np.float32)
    assert score == model.predict([("aaaa", "aazz")])[0]


@pytest.mark.parametrize(
    "pairs", [[["a", "b"], ["a", "c"]], np.array([["a", "b"], ["a", "c"]]), zip("aa", "bc", strict=True)]
)
def test_pairs_come_in_any_sequence(model: CrossEncoder, pairs: Any) -> None:
    assert model.predict(pairs).shape == (2,)


def test_no_pairs_give_no_scores(model: CrossEncoder, transport: FakeTransport) -> None:
    assert model.predict([]).shape == (0,)
    assert model.rank("q", []) == []
    assert transport.requests == []


@pytest.mark.parametrize("document", [BLUE, np.asarray(BLUE), {"image": BLUE}, {"image": [BLUE]}, Image.from_pil(BLUE)])
def test_an_image_may_be_what_other_libraries_have(model: CrossEncoder, document: Any) -> None:
    assert model.predict(("q", document)) == model.predict(("q", Image.from_pil(BLUE)))


def test_a_dict_of_text_and_image_is_both(model: CrossEncoder) -> None:
    both = ImageText(Image.from_pil(BLUE), "aaaa")
    assert model.predict(("q", {"text": "aaaa", "image": BLUE})) == model.predict(("q", both))


def test_rank_returns_dicts_best_first(model: CrossEncoder, client: LycheeClient) -> None:
    documents = ["zzzz", "aaaa", "aazz"]
    ranked = model.rank("aaaa", documents, return_documents=True)
    results = client.rerank("aaaa", documents).results
    assert [result["corpus_id"] for result in ranked] == [result.index for result in results]
    assert [result["text"] for result in ranked] == [documents[result.index] for result in results]
    assert [result["score"] for result in ranked] == pytest.approx([result.relevance_score for result in results])
    assert model.rank("aaaa", documents, top_k=1) == [{key: ranked[0][key] for key in ("corpus_id", "score")}]


@pytest.mark.parametrize("name", ["identity", "torch.nn.modules.linear.Identity"])
def test_activation_may_be_named(model: CrossEncoder, client: LycheeClient, name: str) -> None:
    logits = [result.logit for result in client.rerank("aaaa", ["aaaa"]).results]
    assert model.predict([("aaaa", "aaaa")], activation_fn=name) == pytest.approx(logits)
    assert model.predict([("aaaa", "aaaa")], activation_fn="sigmoid") == model.predict([("aaaa", "aaaa")])
    with pytest.raises(ConfigurationError, match="'softplus'"):
        model.predict([("aaaa", "aaaa")], activation_fn="softplus")


@pytest.mark.parametrize("function", [torch.nn.Identity(), lambda logits: logits])
def test_activation_is_applied_to_the_logits(client: LycheeClient, function: Callable[[Any], Any]) -> None:
    logits = [result.logit for result in client.rerank("aaaa", ["aaaa", "zzzz"]).results]
    pairs = [("aaaa", "aaaa"), ("aaaa", "zzzz")]
    assert CrossEncoder(client=client).predict(pairs, activation_fn=function) == pytest.approx(logits)
    assert CrossEncoder(client=client, activation_fn=function).predict(pairs) == pytest.approx(logits)
    doubled = CrossEncoder(client=client, activation_fn=function).predict(pairs, activation_fn=lambda x: 2 * x)
    assert doubled == pytest.approx(2 * np.array(logits))


def test_activation_that_loses_pairs_is_refused(model: CrossEncoder) -> None:
    with pytest.raises(ConfigurationError, match=r"returned .* for \(2, 1\)"):
        model.predict([("a", "b"), ("a", "c")], activation_fn=lambda logits: logits[:1])


def test_activation_gets_arrays_and_no_torch_is_imported() -> None:
    code = (
        "import sys, lychee_client, numpy as np\n"
        "from lychee_client._cross_encoder.activation import activate\n"
        "lychee_client.CrossEncoder('localhost:1').close()\n"
        "logits = np.array([1, -1], np.float32)\n"
        "print(activate(np.tanh, logits, logits).round(2), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[ 0.76 -0.76] False"


def test_tensors_are_returned_where_asked_for(model: CrossEncoder) -> None:
    pairs = [("a", "b"), ("a", "c")]
    tensor = model.predict(pairs, convert_to_tensor=True)
    assert (tensor.dtype, tensor.shape) == (torch.float32, (2,))
    assert [score.shape for score in model.predict(pairs, convert_to_numpy=False)] == [(), ()]


def test_tensors_without_torch_are_refused_before_anything_is_sent(
    model: CrossEncoder, transport: FakeTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ConfigurationError, match="torch is not installed"):
        model.predict(("a", "b"), convert_to_tensor=True)
    assert transport.requests == []


@pytest.mark.parametrize(
    ("pair", "problem"),
    [
        (("q", ""), "empty"),
        (("", "d"), "query"),
        (("q", Image.from_bytes(b"no image")), "image"),
        (("q", 3), "builtins.int"),
        (("q", {"audio": "a.wav"}), "'audio'"),
        (("q", {}), "an empty mapping"),
        (("q", {"image": "https://example.com/a.jpg"}), "not downloaded"),
        (("q", {"image": "data:image/png;base64,???"}), "image"),
        (("q", "d", "e"), r"expected \(query, document\)"),
    ],
)
def test_pair_that_cannot_be_scored_is_named(model: CrossEncoder, pair: Any, problem: str) -> None:
    with pytest.raises(InvalidInputError, match=rf"^pair 1 .*{problem}") as caught:
        model.predict([("q", "fine"), pair])
    assert caught.value.index == 1


def test_failure_of_the_server_is_raised_as_it_is() -> None:
    def lose(request: Request) -> None:
        if isinstance(request, InferRequest):
            raise ConnectionFailedError("lost")

    with LycheeClient(transport=FakeTransport(lose), max_retries=0) as client, pytest.raises(ConnectionFailedError):
        CrossEncoder(client=client).predict([("a", "b"), ("b", "c")])


def test_prompt_is_the_instruction() -> None:
    with LycheeClient(transport=FakeTransport(manifest={"instruction": INSTRUCTION})) as client:
        model = CrossEncoder(client=client, prompts={"pets": "Find pets.", "none": ""})
        plain = model.predict(("qqqq", "aaaa"))
        pets = model.predict(("qqqq", "aaaa"), prompt="Find pets.")
        assert plain != pets
        assert model.predict(("qqqq", "aaaa"), prompt_name="pets") == pets
        assert model.rank("qqqq", ["aaaa"], prompt_name="pets")[0]["score"] == pytest.approx(pets)
        assert model.predict(("qqqq", "aaaa"), prompt_name="none") == plain
        default = CrossEncoder(client=client, prompts={"pets": "Find pets."}, default_prompt_name="pets")
        assert default.predict(("qqqq", "aaaa")) == pets
        with pytest.raises(ConfigurationError, match="expected one of"):
            model.predict(("qqqq", "aaaa"), prompt_name="cars")
        with pytest.raises(ConfigurationError, match="expected one of"):
            CrossEncoder(client=client, default_prompt_name="cars")


def test_what_means_nothing_is_ignored_with_a_warning(client: LycheeClient) -> None:
    with pytest.warns(LycheeWarning, match="CrossEncoder ignores device, max_length") as caught:
        model = CrossEncoder(client=client, device="cuda", max_length=512, trust_remote_code=False)
    assert caught[0].filename == __file__
    with pytest.warns(LycheeWarning, match="predict ignores device, processing_kwargs"):
        model.predict(("a", "b"), device="cuda", processing_kwargs={})
    with pytest.warns(LycheeWarning, match="rank ignores convert_to_tensor, num_workers"):
        model.rank("a", ["b"], convert_to_tensor=True, num_workers=2)


def test_names_of_earlier_versions_are_taken(model: CrossEncoder, client: LycheeClient) -> None:
    logit = client.rerank("a", ["b"]).results[0].logit
    old = model.predict(sentences=[("a", "b")], activation_fct=torch.nn.Identity(), show_progress_bar=False)
    assert old == pytest.approx([logit])
    older = CrossEncoder(client=client, default_activation_function=torch.nn.Identity())
    assert older.predict([("a", "b")]) == pytest.approx([logit])


def test_name_of_another_model_is_warned_about_once(client: LycheeClient) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        CrossEncoder("owner/fake", client=client).predict(("a", "b"))
    model = CrossEncoder("owner/another", client=client)
    with pytest.warns(LycheeWarning, match="serves fake, not owner/another"):
        model.predict(("a", "b"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.predict(("a", "b"))


@pytest.mark.parametrize(
    ("arguments", "options", "expected"),
    [
        ((), {}, "there:1"),
        (("owner/model",), {}, "there:1"),
        (("http://here:2",), {}, "http://here:2"),
        (("here:2",), {}, "here:2"),
        (("owner/model",), {"url": "here:2"}, "here:2"),
    ],
)
def test_url_stands_in_the_place_of_the_model(
    arguments: tuple[str, ...], options: dict[str, Any], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LYCHEE_URL", "there:1")
    with CrossEncoder(*arguments, **options) as model:
        assert model._client._config.url == expected


@pytest.mark.parametrize(
    ("arguments", "options", "problem"),
    [
        (("here:1",), {"url": "there:1"}, "one URL"),
        ((), {"num_labels": 3}, "num_labels is 3"),
        ((), {"url": "here:1", "client": "mine"}, "url"),
        ((), {"timeout_s": 1, "client": "mine"}, "timeout_s"),
        (("http://",), {}, "url is"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(
    client: LycheeClient, arguments: tuple[str, ...], options: dict[str, Any], problem: str
) -> None:
    options = {name: client if value == "mine" else value for name, value in options.items()}
    with pytest.raises(ConfigurationError, match=problem):
        CrossEncoder(*arguments, **options)


def test_batch_size_below_one_is_refused(model: CrossEncoder) -> None:
    with pytest.raises(ConfigurationError, match="batch_size is 0"):
        model.predict(("a", "b"), batch_size=0)


def test_closing_leaves_a_client_that_was_passed_in_open(client: LycheeClient) -> None:
    with CrossEncoder(client=client):
        pass
    assert client.score("a", "b") > 0
    with CrossEncoder("localhost:1") as own:
        pass
    with pytest.raises(ConnectionFailedError, match="closed"):
        own.predict(("a", "b"))


def test_connection_ends_with_the_object() -> None:
    model = CrossEncoder("localhost:1")
    client = model._client
    del model
    gc.collect()
    with pytest.raises(ConnectionFailedError, match="closed"):
        client.score("a", "b")

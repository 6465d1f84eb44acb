"""CrossEncoder is called as sentence-transformers' own class is, and answers in its types and shapes."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lychee_client
import numpy as np
import PIL.Image
import pytest
import torch
from checkpoints.bert_tokenizer import write_bert_tokenizer
from fakes.dual_encoder import FakeTransport
from lychee_client import LycheeClient, LycheeWarning
from transformers import BertConfig, BertForSequenceClassification

pytestmark = pytest.mark.slow  # importing sentence-transformers takes ten seconds

PAIRS = [("a cat", "the cat sleeps"), ("a cat", "a cup of coffee"), ("a cup", "hot drink")]


@pytest.fixture(scope="module")
def their_class() -> Any:
    """Import sentence-transformers, and only for those who run these tests."""
    from sentence_transformers import CrossEncoder

    return CrossEncoder


@pytest.fixture(scope="module")
def theirs(their_class: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Load a tiny random model of one label."""
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=write_bert_tokenizer(folder),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        num_labels=1,
        initializer_range=0.5,
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    return their_class(str(folder), device="cpu")


@pytest.fixture
def ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[lychee_client.CrossEncoder]:
    monkeypatch.setenv("LYCHEE_CACHE_DIR", str(tmp_path))
    with LycheeClient(transport=FakeTransport()) as client:
        yield lychee_client.CrossEncoder(client=client)


def shape_of(answer: Any) -> Any:
    """Return the types of an answer, and the shapes and dtypes of what has them."""
    if isinstance(answer, (list, tuple)):
        return type(answer), [shape_of(element) for element in answer]
    if isinstance(answer, dict):
        return {key: shape_of(element) for key, element in answer.items()}
    return type(answer), getattr(answer, "shape", None), getattr(answer, "dtype", None)


@pytest.mark.parametrize("method", ["predict", "rank"])
def test_methods_have_the_same_parameters(their_class: Any, method: str) -> None:
    def parameters(owner: type) -> list[tuple[str, Any, Any]]:
        signature = inspect.signature(getattr(owner, method))
        return [(one.name, one.kind, one.default) for one in signature.parameters.values()]

    assert parameters(lychee_client.CrossEncoder) == parameters(their_class)


def test_constructor_takes_every_argument_of_theirs(their_class: Any) -> None:
    parameters = inspect.signature(their_class.__init__).parameters
    names = set(parameters) - {"self", "model_name_or_path"}
    assert "device" in names
    for name in sorted(names):
        given = {"num_labels": 1, "prompts": {"a": "b"}, "default_prompt_name": None, "activation_fn": torch.tanh}
        if name in given:
            lychee_client.CrossEncoder("localhost:1", **{name: given[name]}).close()
            continue
        with pytest.warns(LycheeWarning, match=f"ignores {name}:"):
            lychee_client.CrossEncoder("localhost:1", **{name: "any"}).close()


@pytest.mark.parametrize("inputs", [PAIRS, [list(pair) for pair in PAIRS], PAIRS[0], list(PAIRS[0]), np.array(PAIRS)])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"batch_size": 2, "show_progress_bar": False},
        {"convert_to_tensor": True},
        {"convert_to_numpy": False},
        {"activation_fn": torch.nn.Identity()},
        {"activation_fn": torch.nn.Sigmoid(), "apply_softmax": True},
    ],
    ids=str,
)
def test_predictions_have_the_same_types_and_shapes(theirs: Any, ours: Any, inputs: Any, options: dict) -> None:
    assert shape_of(ours.predict(inputs, **options)) == shape_of(theirs.predict(inputs, **options))


def test_no_pairs_give_no_predictions(theirs: Any, ours: Any) -> None:
    assert ours.predict([]).shape == theirs.predict([]).shape == (0,)
    assert ours.rank("a", []) == theirs.rank("a", []) == []


@pytest.mark.parametrize("options", [{}, {"top_k": 2}, {"top_k": 0}, {"return_documents": True, "top_k": 9}], ids=str)
def test_rankings_have_the_same_types_and_are_sorted(theirs: Any, ours: Any, options: dict) -> None:
    documents = ["the cat sleeps", "a cup of coffee", "a cat"]
    answers = [model.rank("a cat", documents, **options) for model in (ours, theirs)]
    assert shape_of(answers[0]) == shape_of(answers[1])
    for answer in answers:
        assert [result["score"] for result in answer] == sorted((one["score"] for one in answer), reverse=True)
        assert all(documents[result["corpus_id"]] == result["text"] for result in answer if "text" in result)


def test_default_scores_are_the_sigmoid_of_the_logits(theirs: Any, ours: Any) -> None:
    for model in (theirs, ours):
        logits = model.predict(PAIRS, activation_fn=torch.nn.Identity())
        assert model.predict(PAIRS) == pytest.approx(1 / (1 + np.exp(-logits)), abs=1e-5)
        assert len(set(logits.tolist())) == len(PAIRS)


def test_images_are_documents_too(ours: Any) -> None:
    photo = PIL.Image.new("RGB", (40, 30), (200, 9, 9))
    ranked = ours.rank("a cat", ["the cat sleeps", photo, {"text": "a cat", "image": photo}], return_documents=True)
    assert {result["corpus_id"]: result["text"] for result in ranked}[1] is photo


@pytest.mark.parametrize("arguments", [{"batch_size": 0}, {"prompt_name": "unknown"}], ids=str)
def test_the_same_arguments_are_refused(theirs: Any, ours: Any, arguments: dict) -> None:
    for model in (theirs, ours):
        with pytest.raises(ValueError, match=next(iter(map(str, arguments.values())))):
            model.predict(PAIRS, **arguments)

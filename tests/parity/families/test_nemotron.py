"""Llama Nemotron text rerankers against transformers: the client's inputs into modules and ONNX files."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from checkpoints import BUILDERS
from checkpoints.exports import LIMITS
from checkpoints.inputs import TEXTS
from checkpoints.nemotron_reference import NemotronTextModel, load_nemotron_text_model
from lychee_client.preprocessing.prompt import Part, PromptProcessor
from lychee_client.preprocessing.text import TokenizedText
from lychee_export.contract.signature import ModelSignature, Tensors
from lychee_export.errors import CheckpointError
from lychee_export.exporter import export_checkpoint
from lychee_export.families import Checkpoint, load_checkpoint
from lychee_export.onnx.runtime import run_model
from msgspec import structs
from safetensors.torch import load_file, save_file

from .torch_modules import run_module

SCORE_ATOL = 1e-4
LOGIT_ATOL = 1e-4
QUERIES = ("一只猫", "the yellow cat", "Hot drink?", "怎么退款", "a", "coffee: a cup", "flowers & sofas (in yellow)")
LONG_TEXT = "the unbelievable, uncharacteristic cats sleep; 小猫喜欢晒太阳! " * 100

Run = Callable[[ModelSignature, Tensors], Tensors]
Pairs = Sequence[tuple[str, str]]


class Loaded:
    """A checkpoint: in transformers, in the exporter's modules, and with the client's tokenization."""

    def __init__(self, folder: Path) -> None:
        self.reference: NemotronTextModel = load_nemotron_text_model(folder, LIMITS.max_tokens)
        self.checkpoint: Checkpoint = load_checkpoint(str(folder), LIMITS)
        self.modules: dict[str, Any] = {piece.signature.name: piece.module for piece in self.checkpoint.pieces}
        self.read_prompt(self.prompt.template)

    @property
    def prompt(self) -> Any:
        """What the client is told of the prompt."""
        return self.checkpoint.card.spec.prompt

    def read_prompt(self, template: str) -> None:
        """Have the client fill another template."""
        card = self.checkpoint.card
        prompt = structs.replace(self.prompt, template=template)
        self.prompts = PromptProcessor(card.tokenizer_json, card.spec.text, prompt)

    def tokenize(self, pairs: Pairs) -> list[TokenizedText]:
        """Tokenize with the client."""
        rows = []
        for query, document in pairs:
            (row,) = self.prompts.tokenize(self.prompts.make_frame(Part(query), None), [Part(document)])
            assert isinstance(row, TokenizedText), row
            rows.append(row)
        return rows

    def run(self, signature: ModelSignature, tensors: Tensors) -> Tensors:
        """Run a torch module."""
        return run_module(self.modules[signature.name], signature, tensors)

    def run_all(self, run: Run, pairs: Pairs) -> Tensors:
        """Tokenize as the client does, run the ensemble's models in order and return every tensor."""
        (ensemble,) = self.checkpoint.card.ensembles
        tensors: Tensors = {**self.prompts.to_tensors(self.tokenize(pairs))}
        for step in ensemble.steps:
            tensors |= run(step, tensors)
        return tensors


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    """Build and load a checkpoint."""
    return Loaded(BUILDERS["nemotron_reranker"](tmp_path_factory.mktemp("nemotron") / "nemotron_reranker"))


@pytest.fixture
def run_onnx(exported: Callable[[str], Path]) -> Run:
    """Export the checkpoint and run its files in ONNX Runtime."""
    sessions = {
        path.parent.parent.name: onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        for path in exported("nemotron_reranker").glob("*/*/model.onnx")
        if path.parent.parent.name != "client_assets"
    }
    return lambda signature, tensors: run_model(sessions[signature.name], signature, tensors)


def make_pairs(batch: int) -> list[tuple[str, str]]:
    """Return the last so many pairs; one document is longer than the export reads."""
    return list(zip(QUERIES, TEXTS, strict=True))[-batch:]


def assert_pairs_equal(loaded: Loaded, run: Run) -> None:
    for batch in range(1, 8):
        pairs = make_pairs(batch)
        seen = loaded.run_all(run, pairs)
        assert seen["relevance_score"].shape == seen["logits"].shape == (batch, 1)
        logits = loaded.reference.compute_logits(pairs)
        scores = torch.from_numpy(seen["relevance_score"])[:, 0]
        torch.testing.assert_close(scores, logits.sigmoid(), atol=SCORE_ATOL, rtol=0)
        torch.testing.assert_close(torch.from_numpy(seen["logits"])[:, 0], logits, atol=LOGIT_ATOL, rtol=0)
    assert float(logits.sigmoid().max() - logits.sigmoid().min()) > 100 * SCORE_ATOL


def test_pairs_equal_transformers_for_every_batch(loaded: Loaded) -> None:
    assert_pairs_equal(loaded, loaded.run)


def test_onnx_pairs_equal_transformers_for_every_batch(loaded: Loaded, run_onnx: Run) -> None:
    assert_pairs_equal(loaded, run_onnx)


def test_tokens_are_those_of_the_model_card_and_a_long_document_loses_its_end(loaded: Loaded) -> None:
    for pair in [*make_pairs(7), *((query, LONG_TEXT) for query in QUERIES)]:
        (row,) = loaded.tokenize([pair])
        expected = loaded.reference.tokenize([pair])["input_ids"][0].tolist()
        assert list(row.ids) == expected
        assert row.truncated == (len(expected) == loaded.reference.max_tokens)


def test_prompt_of_the_longest_length_is_scored(loaded: Loaded, run_onnx: Run) -> None:
    pair = (QUERIES[1], LONG_TEXT)
    (row,) = loaded.tokenize([pair])
    assert len(row.ids) == row.bucket == loaded.reference.max_tokens == 512
    score = loaded.run_all(run_onnx, [pair])["relevance_score"]
    assert float(score[0, 0]) == pytest.approx(float(loaded.reference.score([pair])), abs=SCORE_ATOL)


def test_score_is_the_same_whatever_the_padding(loaded: Loaded, run_onnx: Run) -> None:
    rows = loaded.prompts.to_tensors(loaded.tokenize([(QUERIES[0], TEXTS[1])]))
    (ensemble,) = loaded.checkpoint.card.ensembles
    scores = []
    for more in (0, 32):
        tensors: Tensors = {
            spec.name: np.pad(rows[spec.name], ((0, 0), (0, more)), constant_values=spec.pad_value)
            for spec in ensemble.inputs
        }
        for step in ensemble.steps:
            tensors |= run_onnx(step, tensors)
        scores.append(float(tensors["relevance_score"][0, 0]))
    assert scores[0] == pytest.approx(scores[1], abs=1e-6)


def test_golden_pairs_have_the_scores_of_transformers(loaded: Loaded) -> None:
    reference = loaded.checkpoint.make_reference()
    texts = [(str(pair.query.text), str(pair.document.text)) for pair in reference.golden_pairs]
    expected = [float(loaded.reference.score([text])) for text in texts]
    assert [pair.relevance_score for pair in reference.golden_pairs] == pytest.approx(expected, abs=2e-6)
    assert max(expected) - min(expected) > 0.1
    assert "logits without an activation" in str(reference.notes)


def calm_the_head(folder: Path) -> None:
    """Take back the steepness that makes mistakes show: it makes errors of rounding as large."""
    path = folder / "model.safetensors"
    weights = load_file(path)
    weights["score.weight"] /= 4
    save_file(weights, path, metadata={"format": "pt"})


@pytest.mark.parametrize(("precision", "target"), [("w8", "cpu"), ("w4", "cpu"), ("fp16", "cuda"), ("bf16", "cuda")])
def test_precisions_keep_scores_within_what_each_accepts(
    checkpoint_folder: Callable[[str], Path], tmp_path: Path, precision: Any, target: Any
) -> None:
    lines: list[str] = []
    folder = shutil.copytree(checkpoint_folder("nemotron_reranker"), tmp_path / "checkpoint")
    calm_the_head(folder)
    report = export_checkpoint(str(folder), tmp_path / "models", precision, lines.append, limits=LIMITS, target=target)
    assert report.manifest.precision == precision
    if target == "cuda":
        assert any(line.startswith("half floats move a score by at most") for line in lines)


def test_static_int8_is_refused(checkpoint_folder: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"precision s8 is for dual encoders .* Choose --precision w8"):
        export_checkpoint(str(checkpoint_folder("nemotron_reranker")), tmp_path, "s8", limits=LIMITS)


def change_the_attention(monkeypatch: pytest.MonkeyPatch, change: Callable[..., torch.Tensor]) -> None:
    monkeypatch.setattr("lychee_export.families.nemotron.llama.attention_bias", change)


def read_forwards_only(_: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    from lychee_export.families.attention import attention_bias

    change_the_attention(monkeypatch, lambda mask, dtype: attention_bias(mask, dtype, causal=True))


def see_the_padding(_: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    from lychee_export.families.attention import attention_bias

    change_the_attention(monkeypatch, lambda mask, dtype: attention_bias(torch.ones_like(mask), dtype))


def pool_with(loaded: Loaded, choose: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Pool other tokens than all that are no padding, which are seen as before."""
    encoder = loaded.modules["text_encoder"]
    read = encoder._read

    def run(x: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        states: list[torch.Tensor] = []
        handle = encoder.norm.register_forward_hook(lambda *call: states.append(call[-1]))
        read(x, attention_mask)
        handle.remove()
        chosen = choose(attention_mask).float()[..., None]
        return (states[0] * chosen).sum(1) / chosen.sum(1)

    encoder._read = run


def pool_the_last_token(loaded: Loaded, _: pytest.MonkeyPatch) -> None:
    pool_with(loaded, lambda mask: (mask.cumsum(1) == mask.sum(1, keepdim=True)) & (mask > 0))


def pool_the_first_token(loaded: Loaded, _: pytest.MonkeyPatch) -> None:
    pool_with(
        loaded, lambda mask: torch.nn.functional.one_hot(torch.zeros(len(mask), dtype=torch.int64), mask.shape[1])
    )


def pool_the_padding_too(loaded: Loaded, _: pytest.MonkeyPatch) -> None:
    pool_with(loaded, torch.ones_like)


def forget_the_temperature(loaded: Loaded, _: pytest.MonkeyPatch) -> None:
    loaded.modules["scoring_head"].temperature = 1.0


def swap_query_and_document(loaded: Loaded, _: pytest.MonkeyPatch) -> None:
    loaded.read_prompt("question:{document} \n \n passage:{query}")


def leave_a_space_out(loaded: Loaded, _: pytest.MonkeyPatch) -> None:
    loaded.read_prompt("question:{query} \n\n passage:{document}")


def add_a_space(loaded: Loaded, _: pytest.MonkeyPatch) -> None:
    loaded.read_prompt("question: {query} \n \n passage: {document}")


def forget_to_scale_the_frequencies(loaded: Loaded, _: pytest.MonkeyPatch) -> None:
    encoder = loaded.modules["text_encoder"]
    count = len(encoder.inverse_frequencies)
    encoder.inverse_frequencies = 500000.0 ** -(torch.arange(count) / count)


@pytest.mark.parametrize(
    "mutate",
    [
        read_forwards_only,
        see_the_padding,
        pool_the_last_token,
        pool_the_first_token,
        pool_the_padding_too,
        forget_the_temperature,
        swap_query_and_document,
        leave_a_space_out,
        add_a_space,
        forget_to_scale_the_frequencies,
    ],
)
def test_mutation_breaks_the_comparison(
    checkpoint_folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, mutate: Callable[..., None]
) -> None:
    loaded = Loaded(checkpoint_folder("nemotron_reranker"))
    mutate(loaded, monkeypatch)
    with pytest.raises(AssertionError, match="Tensor-likes are not close"):
        assert_pairs_equal(loaded, loaded.run)


def test_hooked_pooling_of_all_tokens_changes_nothing(loaded: Loaded, checkpoint_folder: Callable[[str], Path]) -> None:
    hooked = Loaded(checkpoint_folder("nemotron_reranker"))
    pool_with(hooked, lambda mask: mask)
    assert_pairs_equal(hooked, hooked.run)

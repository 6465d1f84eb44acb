"""Which Qwen3 checkpoints are exported as rerankers, and which are refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from checkpoints.qwen3_reranker import build_qwen3_classifier, build_qwen3_reranker
from lychee_export.checkpoint.reading import Reading
from lychee_export.contract.limits import Limits
from lychee_export.errors import CheckpointError
from lychee_export.families import Checkpoint, load_checkpoint
from lychee_export.families.template import name_template


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return build_qwen3_reranker(tmp_path / "Qwen3-Reranker-0.6B")


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def load(folder: Path, **reading: Any) -> Checkpoint:
    return load_checkpoint(str(folder), Limits(max_tokens=512), Reading(**reading), weights=False)


def test_published_name_tells_what_it_is(folder: Path) -> None:
    spec = load(folder).card.spec
    assert (spec.family, name_template(spec.prompt)) == ("qwen3_reranker", "qwen3_reranker")
    assert spec.instruction is not None
    assert spec.instruction.default.startswith("Given a web search query")
    assert spec.image is None


def test_model_that_does_not_rank_is_refused_unless_its_prompt_is_named(folder: Path) -> None:
    other = folder.rename(folder.parent / "Qwen3-0.6B")
    with pytest.raises(
        CheckpointError, match=r"Qwen3ForCausalLM is the class of models that rank .* --template: qwen3_"
    ):
        load(other)
    assert load(other, template="qwen3_reranker").card.spec.family == "qwen3_reranker"
    with pytest.raises(CheckpointError, match="no template 'lychee_rerank_mm' for Qwen3ForCausalLM; known are qwen3_"):
        load(other, template="lychee_rerank_mm")


def test_instruction_of_the_export_is_the_default(folder: Path) -> None:
    spec = load(folder, instruction="Find a product.").card.spec
    assert spec.instruction is not None
    assert spec.instruction.default == "Find a product."


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}, "expected full_attention alone"),
        ({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "rotary positions of type 'dynamic'"),
        ({"architectures": ["Qwen3ForTokenClassification"]}, r"architectures\[0\] is 'Qwen3ForTokenClassification'"),
    ],
)
def test_settings_that_are_not_computed_are_refused(folder: Path, changes: dict[str, Any], message: str) -> None:
    edit(folder, **changes)
    with pytest.raises(CheckpointError, match=message):
        load(folder)


def test_classifier_of_three_labels_is_refused(tmp_path: Path) -> None:
    folder = build_qwen3_classifier(tmp_path / "qwen3_reranker", labels=3)
    with pytest.raises(CheckpointError, match="score has 3 labels"):
        load(folder)


def test_limits_that_the_prompt_takes_are_refused(folder: Path) -> None:
    with pytest.raises(CheckpointError, match=r"takes \d+ tokens without query and document.*larger --max-tokens"):
        load_checkpoint(str(folder), Limits(max_tokens=96), weights=False)


@pytest.mark.parametrize("word", ["yes", "no"])
def test_tokenizer_that_splits_an_answer_is_refused(folder: Path, word: str) -> None:
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    content["model"]["merges"] = [pair for pair in content["model"]["merges"] if "".join(pair) != word]
    path.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=f"splits the label '{word}'"):
        load(folder)

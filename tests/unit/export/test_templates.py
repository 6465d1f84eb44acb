"""Which prompt a Qwen-VL checkpoint is scored with: what its class, its names and the user say."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from checkpoints.qwen_vl import build_jina_m0, build_qwen2_5_vl, build_qwen2_vl, build_qwen3_vl, name_original
from checkpoints.qwen_vl_variants import build_qwen3_vl_classifier
from lychee_export.checkpoint.reading import Reading
from lychee_export.contract.limits import Limits
from lychee_export.errors import CheckpointError
from lychee_export.families import load_checkpoint
from lychee_export.families.template import name_template, templates

LIMITS = Limits(max_img_size=224)


def template_of(folder: Path, name: str | None = None) -> str | None:
    card = load_checkpoint(str(folder), LIMITS, Reading(template=name), weights=False).card
    return name_template(card.spec.prompt)


def unnamed(build: Callable[[Path], Path], folder: Path) -> Path:
    (build(folder) / "README.md").unlink()
    return folder


def test_model_that_does_not_rank_is_not_scored_with_a_prompt_of_ours(tmp_path: Path) -> None:
    folder = unnamed(build_qwen2_5_vl, tmp_path / "Qwen2.5-VL-7B-Instruct")
    name_original(folder, "Qwen/Qwen2.5-VL-7B")
    message = (
        r"Qwen2_5_VLForConditionalGeneration is the class of models that rank and of models that do not.*"
        r"looked at Qwen2\.5-VL-7B-Instruct, Qwen/Qwen2\.5-VL-7B .*--template: "
        r"lychee_rerank_mm \(vec-ai/lychee-rerank-mm\), monoqwen2_vl \(.*\), qwen3_vl_reranker \("
    )
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(str(folder), LIMITS)


@pytest.mark.parametrize(
    ("build", "name", "template"),
    [
        (build_qwen2_5_vl, "lychee-rerank-mm", "lychee_rerank_mm"),
        (build_qwen2_vl, "MonoQwen2-VL-v0.1-merged", "monoqwen2_vl"),
        (build_qwen3_vl, "Qwen3-VL-Reranker-8B", "qwen3_vl_reranker"),
        (build_qwen3_vl_classifier, "qwen3_vl_reranker_2b_seq_cls", "qwen3_vl_reranker"),
    ],
)
def test_published_name_tells(tmp_path: Path, build: Callable[[Path], Path], name: str, template: str) -> None:
    assert template_of(unnamed(build, tmp_path / name)) == template


def test_class_of_its_own_tells(tmp_path: Path) -> None:
    assert template_of(unnamed(build_jina_m0, tmp_path / "my-model")) == "jina_reranker_m0"


@pytest.mark.parametrize(
    "say",
    [
        lambda folder: name_original(folder, "vec-ai/lychee-rerank-mm"),
        lambda folder: (folder / "README.md").write_text("---\nbase_model: vec-ai/lychee-rerank-mm\n---\n"),
        lambda folder: (folder / "config.json").write_text(
            json.dumps(json.loads((folder / "config.json").read_text()) | {"_name_or_path": "runs/lychee_rerank_mm"})
        ),
    ],
    ids=["list in README.md", "name in README.md", "config.json"],
)
def test_fine_tune_says_what_it_was_made_from(tmp_path: Path, say: Callable[[Path], Any]) -> None:
    folder = unnamed(build_qwen2_5_vl, tmp_path / "tuned")
    say(folder)
    assert template_of(folder) == "lychee_rerank_mm"


def test_card_that_cannot_be_read_says_nothing(tmp_path: Path) -> None:
    folder = unnamed(build_qwen2_5_vl, tmp_path / "tuned")
    (folder / "README.md").write_text("---\nbase_model: [\n---\n# lychee-rerank-mm\n")
    with pytest.raises(CheckpointError, match="nothing says which reranker tuned is: looked at tuned "):
        load_checkpoint(str(folder), LIMITS)


@pytest.mark.parametrize("name", ["qwen3_vl_reranker", "monoqwen2-vl"])
def test_user_says_how_a_checkpoint_was_trained(tmp_path: Path, name: str) -> None:
    assert template_of(build_qwen2_5_vl(tmp_path), name) == name.replace("-", "_")


@pytest.mark.parametrize(
    ("build", "name", "message"),
    [
        (build_qwen2_5_vl, "lychee", "no template 'lychee' for Qwen2_5_VLForConditionalGeneration; known are lychee_r"),
        (build_qwen2_5_vl, "jina_reranker_m0", "no template 'jina_reranker_m0' for Qwen2_5_VL"),
        (build_jina_m0, "lychee_rerank_mm", "for JinaVLForRanking; known are jina_reranker_m0 "),
    ],
)
def test_template_that_does_not_fit_is_refused(
    tmp_path: Path, build: Callable[[Path], Path], name: str, message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(str(build(tmp_path)), LIMITS, Reading(template=name))


def test_other_families_have_no_template_to_choose() -> None:
    with pytest.raises(CheckpointError, match="of the family lychee_mini, which has no prompt to choose"):
        load_checkpoint("lychee-mini", reading=Reading(template="lychee_rerank_mm"))


def test_every_template_is_told_from_the_others_by_its_prompt() -> None:
    assert [name_template(template.prompt) for template in templates().values()] == list(templates())
    assert name_template(None) is None

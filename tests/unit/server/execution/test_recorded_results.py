"""The judgement on what a CPU with bfloat16 gave: recorded, so that it is tested on every machine.

The recording holds lychee-mini's embeddings from OpenVINO on AMD Zen 4, in float32 and in bfloat16: of the reference
texts, of the same texts padded by 16, of the reference images, and of four images of noise.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lychee_export
import numpy as np
import pytest
from lychee_server.execution import measuring
from lychee_server.execution.choice import choose
from lychee_server.execution.measurement import ModelTask, Task
from lychee_server.execution.reference_rows import QUERY_STEP, EnsembleRows, Step

RECORDING = Path(__file__).parents[3] / "recordings" / "lychee_mini_openvino.npz"
CHECKPOINT = Path(lychee_export.__file__).parent / "checkpoint" / "bundled" / "lychee_mini"
TEXT_STEP = Step(
    "text_encoder", {"input_ids": "input_ids", "attention_mask": "attention_mask"}, {"text_embedding": "text_embedding"}
)
IMAGE_STEP = Step("vision_encoder", {"pixel_values": "pixel_values"}, {"image_embedding": "image_embedding"})


class Replay:
    """Answers the number of a row, and whether it is padded, with the embedding that was recorded for it."""

    def __init__(self, recorded: Mapping[str, np.ndarray], model: str, precision: str) -> None:
        kind = "text" if model == "text_encoder" else "image"
        self.tables = [recorded[f"{kind}_embedding_{precision}"]]
        if kind == "text":
            self.tables.append(recorded[f"text_embedding_padded_{precision}"])

    def run(self, output_names: Sequence[str] | None, input_feed: Mapping[str, Any]) -> list[Any]:
        rows = next(iter(input_feed.values()))
        return [np.stack([self.tables[padded][row] for row, padded in rows])]


class Head:
    """lychee-mini's scoring head of one modality."""

    def __init__(self, scale: float, bias: float) -> None:
        self.scale, self.bias = scale, bias

    def run(self, output_names: Sequence[str], input_feed: Mapping[str, Any]) -> list[Any]:
        query, document = input_feed.values()
        return [1 / (1 + np.exp(-(self.scale * (query * document).sum(1, keepdims=True) + self.bias)))]


@pytest.fixture
def recorded() -> dict[str, np.ndarray]:
    """Return the recorded arrays."""
    with np.load(RECORDING) as file:
        return {name: file[name] for name in file.files}


def numbers(rows: Sequence[int], padded: int = 0) -> np.ndarray:
    return np.array([(row, padded) for row in rows])


def make_rows(recorded: Mapping[str, np.ndarray], heads: Mapping[str, Head]) -> list[EnsembleRows]:
    """Pair every text with every text, and every text with every image; the reference is float32."""
    texts, images = recorded["text_embedding_f32"], recorded["image_embedding_f32"]
    found = []
    for part, step, documents in (("text", TEXT_STEP, texts), ("image", IMAGE_STEP, images)):
        pairs = [(query, document) for query in range(len(texts)) for document in range(len(documents))]
        queries, others = (list(side) for side in zip(*pairs, strict=True))
        inputs = {"query_input_ids": numbers(queries), "query_attention_mask": numbers(queries)}
        names = list(step.inputs.values())
        inputs |= {name: numbers(others) for name in names}
        padded = {name: numbers(others, 1) for name in names} if part == "text" else {}
        head_step = Step(
            f"head_{part}",
            {"query_embedding": "query_embedding", f"{part}_embedding": f"{part}_embedding"},
            {"relevance_score": "relevance_score"},
        )
        feed = {"query": texts[queries], "document": documents[others]}
        scores = heads[f"head_{part}"].run(["relevance_score"], feed)[0].ravel().astype(np.float64)
        found.append(EnsembleRows((QUERY_STEP, step, head_step), inputs, padded, scores))
    return found


@pytest.fixture
def measure(recorded: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that measures the recorded machine with a budget, and chooses."""
    constants = json.loads((CHECKPOINT / "config.json").read_text(encoding="utf-8"))["scoring_head"]
    heads = {
        "head_text": Head(constants["text"]["text_scale"], constants["text"]["bias"]),
        "head_image": Head(constants["image"]["image_scale"], constants["image"]["bias"]),
    }

    def open_recorded(task: Task, model: str, execution: str) -> Any:
        if model in heads:
            return heads[model]
        return Replay(recorded, model, "bf16" if execution == "openvino-bf16" else "f32")

    monkeypatch.setattr(measuring, "_open", open_recorded)
    monkeypatch.setattr(measuring, "_compare_speed", lambda session, plain, feed: 1.8)
    monkeypatch.setattr(measuring, "read_rows", lambda path, ensembles: make_rows(recorded, heads))

    def run(budget: float) -> tuple[Any, dict[str, str]]:
        models = {name: ModelTask("", 1, choose=True) for name in ("text_encoder", "vision_encoder")}
        task = Task("", models, {}, budget, None)
        found = measuring.measure(task, ["cpu-fp32", "openvino-bf16", "openvino-fp32"], 0.0)
        return found, {name: choice.execution for name, choice in choose(found.models, budget).items()}

    return run


@pytest.fixture(autouse=True)
def enough_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing be left out for want of time."""
    monkeypatch.setattr(measuring, "TIME_LIMIT_S", float("inf"))


def test_texts_keep_the_default_budget_and_photos_do_not(measure: Any) -> None:
    found, choices = measure(0.01)
    text, image = (found.models[name]["openvino-bf16"] for name in ("text_encoder", "vision_encoder"))
    assert 0.001 < text.error < 0.01
    assert 0.01 < image.error < 0.05
    assert choices == {"text_encoder": "openvino-bf16", "vision_encoder": "openvino-fp32"}


def test_exact_leaves_bfloat16_untried(measure: Any) -> None:
    found, choices = measure(0.0)
    assert "openvino-bf16" not in found.models["text_encoder"]
    assert set(choices.values()) == {"openvino-fp32"}


def test_a_wide_budget_takes_both(measure: Any) -> None:
    _, choices = measure(0.05)
    assert set(choices.values()) == {"openvino-bf16"}


def test_padding_moved_no_recorded_score(measure: Any) -> None:
    found, _ = measure(0.05)
    assert found.models["text_encoder"]["openvino-bf16"].move == 0.0


def test_a_model_whose_padding_moves_a_score_is_not_chosen(measure: Any, recorded: dict[str, np.ndarray]) -> None:
    recorded["text_embedding_padded_bf16"] = np.roll(recorded["text_embedding_padded_bf16"], 1, axis=0)
    found, choices = measure(0.01)
    assert found.models["text_encoder"]["openvino-bf16"].move > 0.1
    assert choices["text_encoder"] == "openvino-fp32"


def test_noise_tells_less_of_bfloat16_than_photos(recorded: dict[str, np.ndarray]) -> None:
    cosine = {
        kind: float((recorded[f"{kind}_embedding_f32"] * recorded[f"{kind}_embedding_bf16"]).sum(1).min())
        for kind in ("noise_image", "image", "text")
    }
    assert cosine["noise_image"] < 0.99 < cosine["image"] < cosine["text"]

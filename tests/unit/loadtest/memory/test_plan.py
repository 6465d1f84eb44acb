"""A whole deployment against a limit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from lychee_client.repository import TRITON_BYTES
from lychee_loadtest.memory.layers import SizeRun
from lychee_loadtest.memory.plan import STUB_BYTES, answer, notes, plan_memory

MB = 1_000_000


def test_shared_libraries_and_the_servers_own_memory_count_once(measure: Any, size_run: Callable[..., SizeRun]) -> None:
    model = measure(size_run(None, 10 * MB))
    need = plan_memory([model, model], 8, images=False)
    assert need.layers.total == pytest.approx(2 * 400 * MB + TRITON_BYTES + 2 * STUB_BYTES)
    assert need.serving_bytes == pytest.approx(need.layers.total - 40 * MB)
    assert need.loading_bytes == 2 * 700 * MB + TRITON_BYTES - 40 * MB


def test_every_instance_needs_everything(measure: Any, size_run: Callable[..., SizeRun]) -> None:
    once = plan_memory([measure(size_run(None, 10 * MB))], 8, images=False)
    twice = plan_memory([measure(size_run(None, 10 * MB), instances=2)], 8, images=False)
    assert twice.layers.total - once.layers.total == pytest.approx(400 * MB + STUB_BYTES)
    assert twice.serving_bytes - once.serving_bytes == pytest.approx(360 * MB + STUB_BYTES)
    assert twice.error_bytes == 2 * once.error_bytes


def test_without_images_the_vision_model_waits(measure: Any, size_run: Callable[..., SizeRun]) -> None:
    model = measure(size_run(None, 10 * MB), reads_images=True)
    assert plan_memory([model], 8, images=False).models[0].prediction.rows == 0
    assert plan_memory([model], 8, images=True).models[0].prediction.rows == 8


@pytest.mark.parametrize(
    ("limit_mb", "load_mb", "verdict"),
    [(800, 300, "fits"), (430, 300, "too close to call"), (400, 300, "does not fit"), (800, 900, "does not fit")],
)
def test_serving_and_loading_must_both_fit_with_their_errors(
    measure: Any, size_run: Callable[..., SizeRun], limit_mb: int, load_mb: int, verdict: str
) -> None:
    model = measure(size_run(None, 10 * MB, rows=(1, 2, 4)), load_peak_bytes=load_mb * MB)
    need = plan_memory([model], 4, images=False)
    assert need.serving_bytes == pytest.approx(426 * MB, rel=0.001) or load_mb == 900
    found = answer(need, round(need.serving_bytes) if verdict == "too close to call" else limit_mb * MB)
    assert found.verdict == verdict
    assert found.sentence.startswith("Batch 4 with texts ")
    assert ("loading decides" in found.sentence) == (load_mb == 900)


def test_the_answer_names_the_question_and_both_numbers(measure: Any, size_run: Callable[..., SizeRun]) -> None:
    need = plan_memory([measure(size_run(512, 10 * MB))], 8, images=False)
    sentence = answer(need, 4 * 10**9).sentence
    assert sentence == (
        "Batch 8 with texts of up to 512 tokens fits into 4.00 GB: 0.47 GB +- 0.01 while serving, up to 0.76 GB +- "
        "0.02 while loading."
    )


def test_notes_say_what_bounds_a_batch_and_what_is_extrapolated(measure: Any, size_run: Callable[..., SizeRun]) -> None:
    sliced = measure(size_run(None, 10 * MB, rows=(1, 2, 4), rows_per_run=4), max_batch_size=16, model="vision")
    grown = measure(size_run(None, 10 * MB), model="text")
    found = list(notes(plan_memory([sliced, grown], 24, images=True)))
    assert found[0] == "vision takes at most 16 rows in one batch (max_batch_size)"
    assert found[1].startswith("vision runs 4 rows at a time (max_run_elements)")
    assert found[2] == "text was measured up to 8 rows; 24 are extrapolated"
    assert found[3].startswith("vision, text: rows have one size")


def test_a_gpu_is_planned_alone(measure: Any, size_run: Callable[..., SizeRun]) -> None:
    need = plan_memory([measure(size_run(None, MB), on_gpu=True, shared_bytes=0), measure()], 8, images=False)
    assert [model.measurement.on_gpu for model in need.models] == [True]
    assert need.layers.framework == 100 * MB

"""What is chosen from which measurements."""

from __future__ import annotations

import pytest
from lychee_client.manifest import UNCHOSEN
from lychee_server.execution import onnx_sessions
from lychee_server.execution.choice import choose
from lychee_server.execution.measurement import Measurement

PLAIN = Measurement(error=1e-6, speed=1.0)


def chosen(budget: float = 0.01, **models: dict[str, Measurement]) -> dict[str, str]:
    measured = {name: {"cpu-fp32": PLAIN, **found} for name, found in models.items()}
    return {name: choice.execution for name, choice in choose(measured, budget).items()}


def reason(budget: float = 0.01, **found: Measurement) -> str:
    measured = {"text_encoder": {"cpu-fp32": PLAIN, **{name.replace("_", "-"): each for name, each in found.items()}}}
    return choose(measured, budget)["text_encoder"].reason


def test_the_fastest_within_the_budget_is_chosen() -> None:
    found = {"openvino-bf16": Measurement(0.007, speed=1.8), "openvino-fp32": Measurement(2e-6, speed=1.2)}
    assert chosen(text_encoder=found) == {"text_encoder": "openvino-bf16"}
    assert chosen(0.005, text_encoder=found) == {"text_encoder": "openvino-fp32"}
    assert chosen(0.0, text_encoder=found) == {"text_encoder": "openvino-fp32"}


def test_the_errors_of_models_that_meet_in_a_score_add_up() -> None:
    text = {"openvino-bf16": Measurement(0.006, speed=1.5)}
    vision = {"openvino-bf16": Measurement(0.006, speed=2.0)}
    assert chosen(text_encoder=text, vision_encoder=vision) == {
        "text_encoder": "cpu-fp32",
        "vision_encoder": "openvino-bf16",
    }
    assert set(chosen(0.02, text_encoder=text, vision_encoder=vision).values()) == {"openvino-bf16"}


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (Measurement(0.0108), "openvino-bf16 moves a score by 0.0108, 0.01 is allowed"),
        (Measurement(0.001, move=0.0111, speed=2.0), "moves a score by 0.0111 with its batch or padding"),
        (Measurement(0.001, speed=1.04), "openvino-bf16 is 1.04 times as fast"),
        (Measurement(problem="is not usable: no device"), "openvino-bf16 is not usable: no device"),
    ],
)
def test_what_is_inexact_slow_or_broken_is_left_with_its_reason(found: Measurement, why: str) -> None:
    assert chosen(text_encoder={"openvino-bf16": found}) == {"text_encoder": "cpu-fp32"}
    assert why in reason(openvino_bf16=found)


def test_the_reason_tells_speed_and_error() -> None:
    assert reason(openvino_bf16=Measurement(0.00712, speed=1.63)) == (
        "1.6 times as fast as cpu-fp32, scores off by 0.0071, 0.01 is allowed"
    )
    assert reason(openvino_fp32=Measurement(1e-6, speed=1.2)) == "1.2 times as fast as cpu-fp32, the same scores"


def test_float32_that_computes_something_else_is_left() -> None:
    broken = Measurement(0.004, speed=2.0)
    assert chosen(0.0, text_encoder={"openvino-fp32": broken}) == {"text_encoder": "cpu-fp32"}


def test_what_rounded_weights_cost_is_no_part_of_the_budget() -> None:
    plain, fast = Measurement(0.05, speed=1.0), Measurement(0.00009, speed=1.6)
    assert choose({"text_encoder": {"cpu-fp32": plain, "openvino-fp32": fast}}, 0.01)["text_encoder"].execution == (
        "openvino-fp32"
    )
    worse = Measurement(0.015, speed=1.6)
    assert choose({"text_encoder": {"cpu-fp32": plain, "openvino-fp32": worse}}, 0.01)["text_encoder"].execution == (
        "cpu-fp32"
    )


def test_a_machine_with_nothing_else_says_so() -> None:
    assert reason() == "nothing else executes it on this machine"
    assert reason(0.0) == "only float32 is exact"


def test_export_and_backend_name_an_open_choice_alike() -> None:
    assert UNCHOSEN == onnx_sessions.UNCHOSEN  # that file stands alone, and cannot import it

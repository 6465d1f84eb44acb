import numpy as np
import pytest
from lychee_export.errors import ValidationError
from lychee_export.verification.tolerance import Tolerance, check_output, check_score

TOLERANCE = Tolerance(relative_rms=1e-4, score_atol=1e-4, logit_atol=4e-4, relative_max=5e-4)
ROUNDED = Tolerance(relative_rms=0.05, score_atol=0.03, logit_atol=0.2)
HIDDEN = np.random.default_rng(0).normal(size=(3, 64)).astype(np.float32)


@pytest.mark.parametrize("scale", [0.05, 1.0, 8.0])
def test_hidden_states_are_judged_by_their_own_scale(scale: float) -> None:
    noise = np.random.default_rng(1).normal(size=HIDDEN.shape)
    check_output("hidden", scale * (HIDDEN + 8e-5 * noise), scale * HIDDEN, TOLERANCE)
    with pytest.raises(ValidationError, match=r"hidden: the error's root mean square is 0\.00012\d of the reference's"):
        check_output("hidden", scale * (HIDDEN + 1.3e-4 * noise), scale * HIDDEN, TOLERANCE)


@pytest.mark.parametrize("scale", [0.05, 1.0, 8.0])
def test_one_wrong_element_is_seen_although_the_whole_is_right(scale: float) -> None:
    wrong = HIDDEN.copy()
    wrong[1, 7] += 1e-3
    with pytest.raises(ValidationError, match=r"an element differs from the reference by 0\.00[01]\d* of the output's"):
        check_output("hidden", scale * wrong, scale * HIDDEN, TOLERANCE)


def test_massive_element_may_be_off_by_its_own_share() -> None:
    massive = HIDDEN.copy()
    massive[0, 0] = 1000
    moved = massive.copy()
    moved[0, 0] += 0.1
    check_output("hidden", moved, massive, TOLERANCE)


def test_rounded_weights_may_move_one_element_far() -> None:
    moved = HIDDEN.copy()
    moved[1, 7] += 0.5
    check_output("hidden", moved, HIDDEN, ROUNDED)
    with pytest.raises(ValidationError, match=r"is 0\.1 of the reference's; accepted is 0\.05\. Choose a precision"):
        check_output("hidden", 0.9 * HIDDEN, HIDDEN, ROUNDED)


def test_nothing_is_right_only_if_it_is_nothing() -> None:
    nothing = np.zeros((1, 4), np.float32)
    assert check_output("hidden", nothing, nothing, TOLERANCE) == 0
    with pytest.raises(ValidationError, match="root mean square"):
        check_output("hidden", nothing + 1e-5, nothing, TOLERANCE)


def test_logits_are_judged_absolutely_up_to_one_and_relatively_beyond() -> None:
    logits = np.array([[0.0], [20.0]], np.float32)
    assert check_score("logits", logits + np.array([[0], [7e-3]]), logits, 4e-4) == pytest.approx(7e-3, abs=1e-5)
    for error in np.array([[[5e-4], [0]], [[0], [9e-3]]]):
        with pytest.raises(ValidationError, match="logits: differs from the reference by up to"):
            check_score("logits", logits + error, logits, 4e-4)

"""A row that a model cannot read answers NaN; each test takes one fault."""

from __future__ import annotations

import pytest
import torch
from lychee_export.contract.signature import Axis, ModelSignature, TensorSpec
from lychee_export.onnx.row_checks import CheckedRows
from torch import Tensor, nn

LENGTH = Axis("sequence_length", (4, 8))
SIGNATURE = ModelSignature(
    "text_encoder",
    (
        TensorSpec("input_ids", "int64", (LENGTH,), maximum=9),
        TensorSpec("attention_mask", "int64", (LENGTH,), maximum=1),
        TensorSpec("image_embeds", "float32", (2, 3)),
    ),
    (TensorSpec("hidden", "float32", (2,)), TensorSpec("states", "float32", (2, 3))),
    8,
    encoder=True,
)


class Encoder(nn.Module):
    """Look up ids in a table, which has a place for 0 to 9 alone."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 2)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, image_embeds: Tensor) -> tuple[Tensor, Tensor]:
        """Return hidden, (batch_size, 2), and states, (batch_size, 2, 3)."""
        return (self.table(input_ids) * attention_mask[..., None]).sum(1), image_embeds.relu()


def make_inputs() -> list[Tensor]:
    ids = torch.arange(12).reshape(3, 4) % 10
    return [ids, torch.ones_like(ids), torch.ones(3, 2, 3)]


@pytest.fixture
def encoder() -> CheckedRows:
    """Return a checked model."""
    torch.manual_seed(0)
    return CheckedRows(Encoder(), SIGNATURE).requires_grad_(False)


@pytest.mark.parametrize(
    ("which", "place", "value"),
    [
        (0, (1, 2), -1),
        (0, (1, 2), 10),
        (0, (1, 2), 2**62),
        (1, (1, 2), 2),
        (1, (1, 2), -1),
        (1, (1,), 0),
        (2, (1, 0, 1), torch.nan),
        (2, (1, 0, 1), torch.inf),
        (2, (1, 0, 1), -torch.inf),
    ],
)
def test_bad_row_is_nan_throughout_and_costs_no_other(
    encoder: CheckedRows, which: int, place: tuple[int, ...], value: float
) -> None:
    good = encoder(*make_inputs())
    inputs = make_inputs()
    inputs[which][place] = value
    for values, before in zip(encoder(*inputs), good, strict=True):
        assert before.isfinite().all()
        assert values[1].isnan().all()
        torch.testing.assert_close(values[[0, 2]], before[[0, 2]], atol=0, rtol=0)


def test_good_rows_are_computed_as_without_the_checks(encoder: CheckedRows) -> None:
    for values, expected in zip(encoder(*make_inputs()), encoder.module(*make_inputs()), strict=True):
        assert values.equal(expected)


def test_lengths_that_differ_or_are_too_long_fail(encoder: CheckedRows) -> None:
    ids, mask, embeds = make_inputs()
    with pytest.raises(RuntimeError, match="equal size"):
        encoder(ids, mask[:, :1], embeds)
    with pytest.raises(RuntimeError, match="exceeds dimension size"):
        encoder(ids.repeat(1, 3), mask.repeat(1, 3), embeds)


def test_model_without_checked_inputs_stays_as_it_is() -> None:
    signature = ModelSignature("head", (TensorSpec("ids", "int64", (4,)),), (TensorSpec("sum", "int64", (4,)),), 8)
    ids = torch.full((2, 4), -7)
    assert CheckedRows(nn.Identity(), signature)(ids) is ids

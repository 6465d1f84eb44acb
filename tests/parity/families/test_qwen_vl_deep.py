"""Deep Qwen-VL rerankers with trained value ranges: float32 passes the validation, and every mutation fails it.

Measured once by hand, on 2 cores of an AMD EPYC, 2026-11-27: 24 layers of width 896 with these value ranges. Between
ONNX Runtime's float32 and torch's an element of ``hidden``, whose root mean square is about 5, differed by 2.5e-4, a
score by 1.4e-6 and a logit by 4.3e-5. A bound of 2e-5 plus 1e-4 of the element had refused it.
"""

import copy
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints.exports import LIMITS
from checkpoints.qwen_vl_deep import build_deep_qwen2_5_vl
from lychee_export.contract.signature import ModelSignature, Tensors
from lychee_export.errors import ValidationError
from lychee_export.exporter import export_checkpoint
from lychee_export.families import Checkpoint, load_checkpoint
from lychee_export.families.heads import LabelHead
from lychee_export.families.qwen_vl import text
from lychee_export.verification.expected import ExpectedValues, compute_expected
from lychee_export.verification.validation import TOLERANCES, Parity, validate_values
from torch import Tensor, nn

DEPTHS = [24, 28, 36]
Modules = dict[str, Any]


class ModuleSession:
    """A torch module in the place of ONNX Runtime's session."""

    def __init__(self, module: nn.Module, signature: ModelSignature) -> None:
        self._module, self._signature = module, signature
        self._dtype = next((weight.dtype for weight in module.parameters()), torch.float32)

    def run(self, names: list[str], feeds: Tensors) -> list[np.ndarray]:
        tensors = [torch.from_numpy(feeds[spec.name]) for spec in self._signature.inputs]
        with torch.no_grad():
            outputs = self._module(*(x.to(self._dtype) if x.is_floating_point() else x for x in tensors))
        outputs = (outputs,) if isinstance(outputs, Tensor) else outputs
        return [value.float().numpy() for value in outputs]


@cache
def compute(folder: Path) -> tuple[Checkpoint, ExpectedValues]:
    checkpoint = load_checkpoint(str(folder), LIMITS)
    return checkpoint, compute_expected(checkpoint, checkpoint.make_reference())


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """Return a function from a number of layers to the folder of the checkpoint."""
    return cache(lambda layers: build_deep_qwen2_5_vl(tmp_path_factory.mktemp("deep") / "checkpoint", layers))


def validate(expected: ExpectedValues, modules: Mapping[str, nn.Module]) -> Parity:
    return validate_values(
        expected,
        lambda signature: ModuleSession(modules[signature.name], signature),
        TOLERANCES["fp32"],
    )


def copy_modules(checkpoint: Checkpoint) -> Modules:
    return {piece.signature.name: copy.deepcopy(piece.module) for piece in checkpoint.pieces}


@pytest.mark.parametrize("layers", DEPTHS)
def test_checkpoint_has_the_value_ranges_of_a_trained_one(deep: Callable[[int], Path], layers: int) -> None:
    checkpoint, expected = compute(deep(layers))
    encoder = copy_modules(checkpoint)["text_encoder"]
    largest: list[float] = []
    for layer in encoder.layers:
        layer.register_forward_hook(lambda _module, _inputs, output: largest.append(float(output.abs().max())))
    sample = expected.ensemble_samples["rerank_text"]
    ModuleSession(encoder, checkpoint.pieces[1].signature).run([], sample.inputs)
    assert len(largest) == layers
    assert largest[-1] > 5000
    assert float(encoder.norm.weight.max()) > 7
    logits = sample.outputs["logits"]
    assert np.ptp(logits) > 5
    assert np.abs(logits).max() > 5


@pytest.mark.parametrize("layers", DEPTHS)
def test_rounding_of_float32_passes(deep: Callable[[int], Path], layers: int) -> None:
    """Float64 in the place of the exported files: it differs by all of the reference's own rounding."""
    checkpoint, expected = compute(deep(layers))
    parity = validate(expected, {name: module.double() for name, module in copy_modules(checkpoint).items()})
    assert parity.kendall_tau == 1
    assert parity.max_abs_error > 2e-5, "an absolute tolerance would do"


@pytest.mark.slow
def test_deep_export_passes(deep: Callable[[int], Path], tmp_path: Path) -> None:
    report = export_checkpoint(str(deep(DEPTHS[0])), tmp_path, limits=LIMITS)
    assert report.parity.kendall_tau == 1
    assert report.golden_error < 1e-4


def see_the_future(modules: Modules, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "see_causally", lambda valid: valid[:, None, None].expand(-1, 1, valid.shape[1], -1))


def place_in_one_dimension(modules: Modules, monkeypatch: pytest.MonkeyPatch) -> None:
    modules["text_encoder"].locate = lambda is_image, image_index, valid, grids: (
        (valid.long().cumsum(1) - 1).clamp(min=0).expand(3, -1, -1)
    )


def turn_by_another_base(modules: Modules, monkeypatch: pytest.MonkeyPatch) -> None:
    modules["text_encoder"].inverse_frequencies = modules["text_encoder"].inverse_frequencies ** 1.001


def swap_labels(modules: Modules, monkeypatch: pytest.MonkeyPatch) -> None:
    head = modules["scoring_head"]
    modules["scoring_head"] = LabelHead(torch.cat([head.weight, torch.zeros_like(head.weight)]), 1, 0)


def widen_the_norms(modules: Modules, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in modules["text_encoder"].modules():
        if hasattr(module, "variance_epsilon"):
            module.variance_epsilon = 1e-3


def shrink_a_norm_weight(modules: Modules, monkeypatch: pytest.MonkeyPatch) -> None:
    modules["text_encoder"].norm.weight.data[3] *= 0.99


def forget_a_bias(modules: Modules, monkeypatch: pytest.MonkeyPatch) -> None:
    modules["text_encoder"].layers[12].self_attn.v_proj.bias.data.zero_()


def swap_layers(modules: Modules, monkeypatch: pytest.MonkeyPatch) -> None:
    layers = modules["text_encoder"].layers
    layers[12], layers[13] = layers[13], layers[12]


def read_whole_images(modules: Modules, monkeypatch: pytest.MonkeyPatch) -> None:
    modules["vision_encoder"].full_attention = [True, True]


def depend_on_the_batch(modules: Modules, monkeypatch: pytest.MonkeyPatch) -> None:
    modules["text_encoder"].norm.register_forward_hook(lambda _module, _inputs, x: x + 1e-2 * x.mean(0, keepdim=True))


def change_one_element(modules: Modules, monkeypatch: pytest.MonkeyPatch) -> None:
    def change(_module: nn.Module, _inputs: object, x: Tensor) -> Tensor:
        return x.index_add(1, torch.tensor([3]), torch.full_like(x[:, :1], 0.01))

    modules["text_encoder"].norm.register_forward_hook(change)


@pytest.mark.parametrize(
    "mutate",
    [
        see_the_future,
        place_in_one_dimension,
        turn_by_another_base,
        swap_labels,
        widen_the_norms,
        shrink_a_norm_weight,
        forget_a_bias,
        swap_layers,
        read_whole_images,
        depend_on_the_batch,
        change_one_element,
    ],
)
def test_mutation_fails_the_validation(
    deep: Callable[[int], Path],
    monkeypatch: pytest.MonkeyPatch,
    mutate: Callable[[Modules, pytest.MonkeyPatch], None],
) -> None:
    checkpoint, expected = compute(deep(24))
    modules = copy_modules(checkpoint)
    mutate(modules, monkeypatch)
    with pytest.raises(ValidationError):
        validate(expected, modules)

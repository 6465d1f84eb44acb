"""The published Qwen-VL rerankers at their real widths, without weights: what runs at once, and what it takes."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from checkpoints.published_sizes import PUBLISHED, write_published
from lychee_client.manifest import describe_reading
from lychee_export.contract.limits import PROFILES, Limits
from lychee_export.contract.signature import SCORE_OUTPUTS, Axis, ModelSignature, TensorSpec
from lychee_export.errors import CheckpointError
from lychee_export.families import Checkpoint, Piece, load_checkpoint
from lychee_export.gpu_memory import plan_gpu_memory
from lychee_export.repository.triton_config import config_message
from lychee_export.serving_memory import activation_bytes
from torch import Tensor, nn

NAMES = sorted(PUBLISHED)
WIDTHS = {
    "MonoQwen2-VL": 1536,
    "Qwen3-VL-Reranker-2B": 4 * 2048,
    "Qwen3-VL-Reranker-8B": 4 * 4096,
    "jina-reranker-m0": 1536,
    "lychee-3B": 2048,
    "lychee-7B": 3584,
}


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Checkpoint]:
    """Return a function from a published model's name to its modules on the meta device, at the default limits."""
    return cache(
        lambda name: load_checkpoint(str(write_published(tmp_path_factory.mktemp("published"), name)), weights=False)
    )


@pytest.mark.parametrize("name", NAMES)
def test_short_texts_run_together_whatever_the_width(load: Callable[[str], Checkpoint], name: str) -> None:
    (signature,) = [piece.signature for piece in load(name).pieces if piece.signature.name == "text_encoder"]
    config = config_message(signature, "cpu")
    shapes = {spec.name: spec.dims for spec in config.input}
    assert shapes["image_embeds"] == [-1, WIDTHS[name]]
    assert shapes[config.parameters["run_input"].string_value] == [-1]
    rows = {tokens: int(config.parameters["max_run_elements"].string_value) // tokens for tokens in (64, 128)}
    assert min(rows[64], config.max_batch_size) == 32
    assert min(rows[128], config.max_batch_size) == 32


@pytest.mark.parametrize(
    ("name", "page", "tokens"),
    [
        ("lychee-7B", "840 x 1,176 (1,260 tokens)", "3,200 tokens"),
        ("lychee-3B", "840 x 1,176 (1,260 tokens)", "3,200 tokens"),
        ("jina-reranker-m0", "644 x 896 (736 tokens)", "10,240 tokens"),
        ("Qwen3-VL-Reranker-2B", "960 x 1,344 (1,260 tokens)", "8,192 tokens"),
        ("Qwen3-VL-Reranker-8B", "960 x 1,344 (1,260 tokens)", "8,192 tokens"),
        # Nobody says with what it was trained: a bound, and the line says so.
        ("MonoQwen2-VL", "840 x 1,176 (1,260 tokens) instead of 1,652 x 2,352", "4,096 tokens"),
    ],
)
def test_a_page_is_read_as_the_published_code_reads_it(
    load: Callable[[str], Checkpoint], name: str, page: str, tokens: str
) -> None:
    image_line, text_line = describe_reading(load(name).card.spec)
    assert image_line.startswith(f"images: a page of 1,654 x 2,339 pixels is read as {page}")
    assert text_line.startswith(f"texts: at most {tokens}")
    assert ("instead" in image_line) == ("instead" in text_line) == (name == "MonoQwen2-VL")


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("name", ["jina-reranker-m0", "lychee-3B", "lychee-7B"])
def test_batches_for_a_gpu_fit_its_memory(tmp_path: Path, name: str, fused: bool) -> None:
    limits = PROFILES["medium"]
    checkpoint = load_checkpoint(str(write_published(tmp_path, name)), limits, weights=False)
    plan = plan_gpu_memory(checkpoint, limits, "fp16", 24.0, fused=fused)
    assert sum(plan.shares.values()) <= 24e9
    fitted = load_checkpoint(str(tmp_path), plan.limits, weights=False)
    total = 0
    for piece in fitted.pieces[:2]:
        signature = piece.signature
        weights = 2 * sum(weight.numel() for weight in piece.module.parameters())
        tensors = activation_bytes(piece, signature.max_batch_size, torch.float16, fused=fused)
        assert weights + tensors <= plan.shares[signature.name] * 1.01
        total += weights + tensors
    assert total <= 24e9
    assert plan.limits.text_batch >= (2 if name == "lychee-7B" else 8)
    if not fused:
        assert plan.limits.image_batch < limits.image_batch
        unbounded = activation_bytes(fitted.pieces[0], limits.image_batch, torch.float16)
        assert weights + unbounded > plan.shares["vision_encoder"]
        assert any(f"{plan.limits.image_batch} instead of 16 pairs with images" in line for line in plan.lines())


def test_a_gpu_that_holds_no_page_is_told_and_one_without_room_for_the_weights_refused(
    load: Callable[[str], Checkpoint],
) -> None:
    checkpoint = load("lychee-7B")
    plan = plan_gpu_memory(checkpoint, Limits(), "fp16", 24.0, fused=False)
    assert (plan.limits.text_batch, plan.limits.image_batch) == (1, 1)
    assert any("WARNING" in line and "--profile medium" in line for line in plan.lines())
    assert sum(plan.shares.values()) <= 24e9  # the bound holds whatever the request
    with pytest.raises(CheckpointError, match=r"the weights alone take 15\.5 GB, and 11\.0 GB"):
        plan_gpu_memory(checkpoint, Limits(), "fp16", 12.0, fused=False)
    roomy = plan_gpu_memory(checkpoint, Limits(), "fp16", 80.0, fused=False)
    assert not any("WARNING" in line for line in roomy.lines())


def test_activations_do_not_count_the_weights() -> None:
    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(1000, 1000)

        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(self.layer(x))

    spec = TensorSpec("x", "float32", (Axis("n", (1,)), 1000))
    peak = activation_bytes(Piece(ModelSignature("wide", (spec,), SCORE_OUTPUTS, 3), Wide(), lambda rng, rows: {}))
    assert 2 * 3 * 4000 <= peak <= 4 * 3 * 4000

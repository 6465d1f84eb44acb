"""Weights of 16 bits that stay in the checkpoint's files: they compute as if they were loaded in float32."""

import copy
import gc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from lychee_export.checkpoint.lookup import find_checkpoint
from lychee_export.checkpoint.stored_weights import StoredWeight, read_as_float32, stand_ins
from lychee_export.checkpoint.weight_files import held_bytes
from lychee_export.contract.signature import SCORE_OUTPUTS, Axis, ModelSignature, TensorSpec
from lychee_export.export_memory import export_bytes
from lychee_export.families import Piece
from lychee_export.onnx.export import export_onnx
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import Qwen2Config, Qwen2ForCausalLM

HIDDEN = 512


@pytest.fixture(scope="module")
def save(tmp_path_factory: pytest.TempPathFactory) -> Callable[[torch.dtype], Path]:
    """Return a function that writes a language model of 11 M weights, its head tied to its embeddings."""

    def write(dtype: torch.dtype) -> Path:
        torch.manual_seed(0)
        folder = tmp_path_factory.mktemp("model")
        config = Qwen2Config(
            vocab_size=8000,
            hidden_size=HIDDEN,
            intermediate_size=2048,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=4,
            tie_word_embeddings=True,
        )
        Qwen2ForCausalLM(config).to(dtype).save_pretrained(folder)
        return folder

    return write


def load(folder: Path) -> Any:
    return find_checkpoint(str(folder)).with_weights().load_model(Qwen2ForCausalLM)


def own_bytes() -> int:
    gc.collect()
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_model_computes_what_it_computes_in_float32(save: Callable[[torch.dtype], Path], dtype: torch.dtype) -> None:
    folder, ids = save(dtype), torch.arange(24).reshape(2, 12)
    stored, loaded = load(folder), Qwen2ForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    assert stored.dtype == torch.float32
    assert stored.lm_head.weight is stored.model.embed_tokens.weight
    assert isinstance(stored.lm_head.weight, StoredWeight)
    with torch.no_grad():
        for model in (stored, copy.deepcopy(stored)):
            torch.testing.assert_close(model(ids).logits, loaded(ids).logits, atol=2e-6, rtol=0)
        assert torch.equal(stored.lm_head.weight.detach()[7], loaded.lm_head.weight[7])


def test_weights_take_no_memory_of_their_own(save: Callable[[torch.dtype], Path]) -> None:
    folder = save(torch.bfloat16)
    before = own_bytes()
    model = load(folder)
    weights = sum(weight.numel() for weight in model.parameters())
    assert weights > 10e6
    assert own_bytes() - before < weights  # in float32 they would take four bytes each


def test_halved_module_stays_in_the_files(save: Callable[[torch.dtype], Path]) -> None:
    layer = load(save(torch.bfloat16)).model.layers[0].mlp.up_proj.half()
    assert isinstance(layer.weight, StoredWeight)
    assert layer.weight.dtype == torch.float16
    assert torch.equal(layer.weight.read(), layer.weight.stored.half())


def test_weight_of_the_checkpoint_cannot_be_changed_in_place() -> None:
    weight = StoredWeight(torch.ones(2, 3, dtype=torch.bfloat16), torch.float32)
    with pytest.raises(RuntimeError, match="would change a weight of the checkpoint in place"):
        weight.mul_(2)
    assert torch.equal(weight * 2, torch.full((2, 3), 2.0))
    assert "bfloat16 read as torch.float32" in repr(weight)


def test_buffer_that_was_computed_in_16_bits_is_computed_again(
    save: Callable[[torch.dtype], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    class WithBuffer(Qwen2ForCausalLM):
        def __init__(self, config: Qwen2Config) -> None:
            super().__init__(config)
            self.register_buffer("third", torch.full((2,), 1 / 3), persistent=False)

        def _init_weights(self, module: nn.Module) -> None:
            super()._init_weights(module)
            if module is self:
                self.third = torch.full((2,), 1 / 3)

    source = find_checkpoint(str(save(torch.bfloat16))).with_weights()
    assert {buffer.dtype for buffer in source.load_model(WithBuffer).buffers()} == {torch.float32}


class Product(nn.Module):
    """A product of three axes, whose weight the graph reads transposed, and one of two, whose weight it does not."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.outer = nn.Linear(6, 5), nn.Linear(5, 1)

    def forward(self, values: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.outer(self.inner(values).sum(1))
        return torch.sigmoid(logits), logits


@pytest.mark.parametrize("external_data_bytes", [0, 1 << 28])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_exported_file_holds_the_weights_transposed_and_cast(
    tmp_path: Path, dtype: torch.dtype, external_data_bytes: int
) -> None:
    module = Product().bfloat16()
    read_as_float32(module)
    module.to(dtype)
    signature = ModelSignature(
        "encoder", (TensorSpec("values", "float32", (Axis("rows", (2, 4)), 6)),), SCORE_OUTPUTS, 8, encoder=True
    )
    inputs = {"values": np.zeros((3, 4, 6), dtype=np.float16 if dtype == torch.float16 else np.float32)}
    export_onnx(Piece(signature, module.eval(), lambda *_: inputs), tmp_path / "model.onnx", external_data_bytes)
    model = onnx.load(tmp_path / "model.onnx")
    assert "Transpose" not in {node.op_type for node in model.graph.node}
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    np.testing.assert_array_equal(weights["module.inner.weight"], module.inner.weight.stored.to(dtype).numpy().T)
    np.testing.assert_array_equal(weights["module.outer.weight"], module.outer.weight.stored.to(dtype).numpy())
    assert isinstance(module.inner.weight, StoredWeight), "put back after the export"


def test_stand_ins_have_an_address_each_and_the_shapes_of_the_weights() -> None:
    module = Product().bfloat16()
    read_as_float32(module)
    with stand_ins(module) as weights:
        assert module.inner.weight.shape == (5, 6)
        assert not isinstance(module.inner.weight, StoredWeight)
        assert len(weights) == 2
        assert weights[module.inner.weight.data_ptr()].stored.dtype == torch.bfloat16


def test_memory_of_an_export_counts_weights_that_do_not_stay_in_files(
    save: Callable[[torch.dtype], Path], tmp_path: Path
) -> None:
    signature = ModelSignature("encoder", (TensorSpec("values", "float32", (4, 6)),), SCORE_OUTPUTS, 8, encoder=True)
    pieces = (Piece(signature, Product(), lambda _, rows: {"values": np.zeros((rows, 4, 6), np.float32)}),)
    halves, floats = save(torch.bfloat16), save(torch.float32)
    base = export_bytes(find_checkpoint(str(halves)), pieces, "fp32")
    assert 4e8 < base < 4.1e8
    source = find_checkpoint(str(floats))
    absent = replace(source, folder=tmp_path)
    assert export_bytes(source, pieces, "fp32") == export_bytes(absent, pieces, "fp32") == base
    assert export_bytes(source, pieces, "fp16") == base + 2 * (6 * 5 + 5 + 5 + 1)
    weights = load_file(halves / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    save_file(weights | {name: weights[name].float()}, halves / "model.safetensors", {"format": "pt"})
    others = sum(weight.numel() for weight in weights.values()) - weights[name].numel()
    assert held_bytes(halves) == 4 * others
    (tmp_path / "pytorch_model.bin").write_bytes(bytes(100))
    assert held_bytes(tmp_path) == 200

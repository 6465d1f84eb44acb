"""Qwen-VL checkpoints as others publish them: a LoRA adapter alone, and a classifier made from a reranker."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from checkpoints.qwen_vl import build_monoqwen, build_qwen2_5_vl, build_qwen3_vl, name_original

_RANK, _ALPHA = 4, 8
_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def build_adapter(
    folder: Path, base: Path, original: str = "lightonai/MonoQwen2-VL-v0.1", more: Sequence[str] = ()
) -> Path:
    """Write an adapter with the files of lightonai/MonoQwen2-VL-v0.1: no tokenizer, no weights of the base.

    Args:
        folder: The folder to write into.
        base: The folder of a Qwen2-VL in one safetensors file, with the names of transformers 4.
        original: The name in the model card.
        more: Modules outside the language model that the adapter changes too.
    """
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(3)
    factors = {}
    for name, weight in load_file(base / "model.safetensors").items():
        module = name.removesuffix(".weight")
        if name != module and ((module.startswith("model.layers.") and module.endswith(_TARGETS)) or module in more):
            outputs, inputs = weight.shape
            prefix = f"base_model.model.{module}"
            factors[f"{prefix}.lora_A.weight"] = torch.randn(_RANK, inputs, generator=generator) * 0.3
            factors[f"{prefix}.lora_B.weight"] = torch.randn(outputs, _RANK, generator=generator) * 0.3
    save_file(factors, folder / "adapter_model.safetensors", {"format": "pt"})
    config: dict[str, Any] = {
        "base_model_name_or_path": str(base),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": False,
        "init_lora_weights": True,
        "lora_alpha": _ALPHA,
        "lora_dropout": 0.0,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": _RANK,
        "revision": None,
        "target_modules": [*_TARGETS, *more],
        "task_type": None,
    }
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2))
    (folder / "config.json").write_text((base / "config.json").read_text())
    name_original(folder, original)
    return folder


def build_monoqwen_adapter(folder: Path) -> Path:
    """Write an adapter, and beside its folder the base that it names."""
    base = build_monoqwen(folder.parent / f"{folder.name}-base")
    (base / "README.md").unlink()
    return build_adapter(folder, base)


def merge_by_hand(adapter: Path, base: Path, target: Path) -> Path:
    """Write the base with the adapter's products added to its weights."""
    target.mkdir()
    for path in base.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    weights, factors = load_file(base / "model.safetensors"), load_file(adapter / "adapter_model.safetensors")
    for name, outer in factors.items():
        if ".lora_B." in name:
            module = name.removeprefix("base_model.model.").removesuffix(".lora_B.weight")
            inner = factors[name.replace(".lora_B.", ".lora_A.")]
            weights[f"{module}.weight"] = weights[f"{module}.weight"] + outer @ inner * (_ALPHA / _RANK)
    save_file(weights, target / "model.safetensors", {"format": "pt"})
    return target


def build_qwen3_vl_classifier(folder: Path) -> Path:
    """Write Qwen3-VL-Reranker as a classifier of one label."""
    return to_classifier(build_qwen3_vl(folder), "Qwen3VLForSequenceClassification", labels=1)


def build_qwen2_5_vl_classifier(folder: Path) -> Path:
    """Write lychee-rerank-mm as a classifier of two labels, in one file."""
    build_qwen2_5_vl(folder)
    weights: dict[str, torch.Tensor] = {}
    for path in folder.glob("model-*.safetensors"):
        weights |= load_file(path)
        path.unlink()
    (folder / "model.safetensors.index.json").unlink()
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return to_classifier(folder, "Qwen2_5_VLForSequenceClassification", labels=2)


def to_classifier(folder: Path, architecture: str, labels: int) -> Path:
    """Turn a reranker's checkpoint into a classifier's, as vLLM's converter does it: ``score`` for ``lm_head``.

    Args:
        folder: The folder of the checkpoint, whose weights are one safetensors file; it is changed.
        architecture: The name of the class.
        labels: 1, whose row is that of "yes" less that of "no"; or 2, the rows of "no" and "yes".
    """
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    weights = load_file(folder / "model.safetensors")
    head = weights.pop("lm_head.weight")
    yes, no = (head[vocabulary[word]] for word in ("yes", "no"))
    weights["score.weight"] = (yes - no)[None] if labels == 1 else torch.stack([no, yes])
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    path = folder / "config.json"
    config = json.loads(path.read_text()) | {"architectures": [architecture], "num_labels": labels}
    config |= {"id2label": {str(index): f"LABEL_{index}" for index in range(labels)}}
    config |= {"label2id": {f"LABEL_{index}": index for index in range(labels)}}
    config.pop("num_labels") if labels == 2 else None
    path.write_text(json.dumps(config, indent=2))
    return folder

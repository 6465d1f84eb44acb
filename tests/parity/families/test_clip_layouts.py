"""CLIP in the layouts of open_clip and sentence-transformers, against models that share no code with the exporter."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from checkpoints.clip import build_clip
from checkpoints.inputs import TEXTS, make_images
from checkpoints.open_clip import MEAN, STD, OpenClip, build_open_clip
from checkpoints.reference import load_transformers
from lychee_client import Image
from lychee_client.preprocessing.text import TextProcessor
from lychee_export.contract.limits import Limits
from lychee_export.exporter import export_checkpoint
from lychee_export.families import Checkpoint, load_checkpoint
from lychee_export.verification.in_process import in_process_client

ATOL = 1e-5

VARIANTS: dict[str, dict[str, bool]] = {
    "quick_gelu": {},
    "gelu": {"quick_gelu": False},
    "pickled": {"pickled": True},
    "timm": {"timm": True},
}


def embed(checkpoint: Checkpoint) -> tuple[torch.Tensor, torch.Tensor]:
    """Embed all texts and images with the client's preprocessing and the exporter's modules."""
    modules = {piece.signature.name: piece.module for piece in checkpoint.pieces}
    card = checkpoint.card
    texts = TextProcessor(card.tokenizer_json, card.spec.text)
    tensors = texts.to_tensors(texts.tokenize_documents(TEXTS))
    pixels = np.stack([Image.from_pil(image).prepare(card.spec.image).pixel_values for image in make_images()])
    with torch.no_grad():
        return (
            modules["text_encoder"](*(torch.from_numpy(tensors[name]) for name in ("input_ids", "attention_mask"))),
            modules["vision_encoder"](torch.from_numpy(pixels)),
        )


def embed_with_open_clip(model: OpenClip, checkpoint: Checkpoint) -> tuple[torch.Tensor, torch.Tensor]:
    """Embed the same with open_clip's padding: zeros."""
    texts = TextProcessor(checkpoint.card.tokenizer_json, checkpoint.card.spec.text)
    tensors = texts.to_tensors(texts.tokenize_documents(TEXTS))
    ids = torch.from_numpy(tensors["input_ids"] * tensors["attention_mask"])
    mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in (MEAN, STD))
    pixels = [Image.from_pil(image).prepare(checkpoint.card.spec.image).pixel_values for image in make_images()]
    images = (torch.from_numpy(np.stack(pixels)).float() / 255 - mean) / std
    return model.encode_text(ids), model.encode_image(images)


@pytest.mark.parametrize("variant", VARIANTS)
def test_open_clip_embeds_as_its_own_code(tmp_path: Path, variant: str) -> None:
    model = build_open_clip(tmp_path, **VARIANTS[variant])
    checkpoint = load_checkpoint(str(tmp_path))
    for seen, expected in zip(embed(checkpoint), embed_with_open_clip(model, checkpoint), strict=True):
        torch.testing.assert_close(seen, expected, atol=ATOL, rtol=0)
    spread = embed(checkpoint)[1] @ embed(checkpoint)[1].T
    assert float(spread.min()) < 0.99


def test_another_activation_shows(tmp_path: Path) -> None:
    model = build_open_clip(tmp_path, quick_gelu=False)
    path = tmp_path / "open_clip_config.json"
    config = json.loads(path.read_text())
    config["model_cfg"]["quick_gelu"] = True
    path.write_text(json.dumps(config))
    checkpoint = load_checkpoint(str(tmp_path))
    for seen, expected in zip(embed(checkpoint), embed_with_open_clip(model, checkpoint), strict=True):
        assert float((seen - expected).abs().max()) > 10 * ATOL


def build_sentence_transformers(folder: Path, build: Callable[[Path], Path] = build_clip) -> Path:
    """Write what sentence-transformers/clip-ViT-B-32 holds: its model in a folder, as pytorch_model.bin."""
    inner = build(folder / "0_CLIPModel")
    model = load_transformers(inner).model
    torch.save(model.state_dict(), inner / "pytorch_model.bin")
    (inner / "model.safetensors").unlink()
    module = {"idx": 0, "name": "0", "path": "0_CLIPModel", "type": "sentence_transformers.models.CLIPModel"}
    (folder / "modules.json").write_text(json.dumps([module]))
    (folder / "config_sentence_transformers.json").write_text(json.dumps({"__version__": {"pytorch": "1.7.0"}}))
    return folder


def test_clip_of_sentence_transformers_embeds_as_transformers(tmp_path: Path) -> None:
    folder = build_sentence_transformers(tmp_path / "clip-ViT-B-32")
    checkpoint = load_checkpoint(str(folder))
    assert checkpoint.card.spec.model_id == "clip-ViT-B-32"
    expected = load_transformers(folder / "0_CLIPModel").embed(TEXTS, make_images())
    texts, images = embed(checkpoint)
    torch.testing.assert_close(texts, expected.texts, atol=ATOL, rtol=0)
    torch.testing.assert_close(images, expected.images, atol=ATOL, rtol=0)


def test_open_clip_exports_and_scores_through_the_client(tmp_path: Path) -> None:
    build_open_clip(tmp_path / "ViT-B-32", pickled=True)
    limits = Limits(text_batch=8, image_batch=8)
    export_checkpoint(str(tmp_path / "ViT-B-32"), tmp_path / "models", limits=limits)
    with in_process_client(tmp_path / "models") as client:
        assert client.check_golden_pairs().max_abs_error < 1e-4
    (path,) = (tmp_path / "models/text_encoder").glob("*/model.onnx")
    operators = {node.op_type for node in onnx.load(path, load_external_data=False).graph.node}
    assert "ArgMax" not in operators


def test_end_of_a_text_is_its_first_end_token_whatever_the_runtime_does_with_ties(tmp_path: Path) -> None:
    """The padding is the end token, too."""
    checkpoint = load_checkpoint(str(build_clip(tmp_path)))
    encoder = next(piece.module for piece in checkpoint.pieces if piece.signature.name == "text_encoder")
    eos = checkpoint.card.spec.text.pad_token_id
    ids = torch.tensor([[5, 6, eos, eos, eos], [5, eos, eos, eos, eos], [5, 6, 7, 8, 9]])
    assert encoder._find_end(ids).tolist() == [2, 1, 0]
    legacy = load_checkpoint(str(build_clip(tmp_path / "legacy", legacy_eos=True)))
    encoder = next(piece.module for piece in legacy.pieces if piece.signature.name == "text_encoder")
    assert encoder._find_end(ids[:2]).tolist() == [2, 1]

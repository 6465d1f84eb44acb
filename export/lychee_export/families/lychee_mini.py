"""lychee-mini: a bilingual text encoder and an ImageNet vision encoder in one embedding space.

The text encoder is multilingual-e5-small with 4-bit weights, the vision encoder EfficientNet-Lite0, whose class
probabilities weight the classes' text embeddings.

Source: checkpoint/bundled/lychee_mini/README.md, the specification, and config.json beside it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from lychee_client.manifest import CropSpec
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError
from safetensors.numpy import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional
from transformers import BertConfig, BertModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from lychee_export.checkpoint.source import CheckpointSource
from lychee_export.contract.limits import Limits
from lychee_export.errors import CheckpointError
from lychee_export.families.dual_encoder import DualEncoder, ScoringHead, at_least_float32, build_checkpoint
from lychee_export.families.dual_reference import ReferenceEncoders
from lychee_export.families.family import Checkpoint, Family
from lychee_export.families.fixed_image import Normalization, prepare_image
from lychee_export.families.samples import decode, encode
from lychee_export.families.text_format import BUCKETS, TextFormat, text_buckets

__all__ = ["FAMILY", "TextEncoder", "VisionEncoder", "dequantize", "load", "load_weights"]

_BLOCK_SIZE = 32
_ZERO_POINT = 8

_BERT_CONFIG_NAMES = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
    "type_vocab_size",
    "layer_norm_eps",
    "hidden_act",
    "pad_token_id",
)
_GOLDEN_IMAGE_SIZE = 128
_GOLDEN_IMAGES = 2
"""A cat and a cup of coffee."""


class TextEncoder(nn.Module):
    """Embed token sequences: mean pooling over the attention mask, unit length, centred, without the directions that
    only tell language and role, unit length.

    Args:
        config: The ``text_encoder`` of config.json.
        weights: The weights, float32, by the names of ``transformers.BertModel`` without a pooler, ``center``, and
            ``removed_directions``, (number of directions, embedding_dim), orthonormal rows.

    Raises:
        ValueError: The directions are absent, or their number is not that of config.json.
    """

    def __init__(self, config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        bert_config = BertConfig(**{name: config[name] for name in _BERT_CONFIG_NAMES})
        bert_config._attn_implementation = "eager"
        self.bert = BertModel(bert_config, add_pooling_layer=False)
        own = {"center", "removed_directions"}
        self.bert.load_state_dict({name: value for name, value in weights.items() if name not in own})
        self.center = nn.Buffer(weights["center"])
        self.removed_directions = nn.Buffer(_find_directions(config, weights))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Embed texts.

        Args:
            input_ids: int64, (batch_size, sequence_length).
            attention_mask: int64, (batch_size, sequence_length), 1 for a token, 0 for padding.

        Returns:
            float32, (batch_size, embedding_dim), rows of unit length.
        """
        hidden = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        hidden = at_least_float32(hidden)
        mask = attention_mask.unsqueeze(-1).to(hidden.dtype)  # (batch_size, sequence_length, 1)
        mean = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1.0)  # (batch_size, hidden_size)
        centred = functional.normalize(mean, dim=-1) - at_least_float32(self.center)
        directions = at_least_float32(self.removed_directions)
        return functional.normalize(centred - (centred @ directions.T) @ directions, dim=-1)


def _find_directions(config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Tensor:
    for name, entries in (("config.json", config), ("model.safetensors", weights)):
        if "removed_directions" not in entries:
            raise ValueError(
                f"{name} has no text_encoder.removed_directions, which tell language and role; an earlier lychee-mini "
                "has none and ranks by language first: take the bundled one"
            )
    directions = weights["removed_directions"]
    expected = (config["removed_directions"], config["hidden_size"])
    if directions.shape != expected:
        raise ValueError(
            f"text_encoder.removed_directions has shape {tuple(directions.shape)}, expected {expected} by config.json"
        )
    return directions


class _Convolution(nn.Module):
    """Convolution with TensorFlow's "same" padding for even sizes, then ReLU6 where asked."""

    def __init__(self, weights: Mapping[str, Tensor], name: str, stride: int = 1, relu6: bool = True) -> None:
        super().__init__()
        self.weight = nn.Buffer(weights[f"{name}.weight"])
        self.bias = nn.Buffer(weights[f"{name}.bias"])
        self.stride = stride
        self.relu6 = relu6
        size = self.weight.shape[-1]
        self.groups = self.weight.shape[0] if self.weight.shape[1] == 1 else 1
        total = size - stride if size > 1 else 0
        self.before, self.after = total // 2, total - total // 2

    def forward(self, x: Tensor) -> Tensor:
        if self.before != self.after:
            x = functional.pad(x, (self.before, self.after, self.before, self.after))
            x = functional.conv2d(x, self.weight, self.bias, self.stride, groups=self.groups)
        else:
            x = functional.conv2d(x, self.weight, self.bias, self.stride, self.before, groups=self.groups)
        return functional.relu6(x) if self.relu6 else x


class _InvertedResidual(nn.Module):
    def __init__(self, config: Mapping[str, Any], weights: Mapping[str, Tensor], name: str) -> None:
        super().__init__()
        layers = []
        if config["expanded_channels"] != config["in_channels"]:
            layers.append(_Convolution(weights, f"{name}.expand"))
        layers.append(_Convolution(weights, f"{name}.depthwise", stride=config["stride"]))
        layers.append(_Convolution(weights, f"{name}.project", relu6=False))
        self.layers = nn.Sequential(*layers)
        self.residual = bool(config["residual"])

    def forward(self, x: Tensor) -> Tensor:
        y = cast(Tensor, self.layers(x))
        return x + y if self.residual else y


class VisionEncoder(nn.Module):
    """Embed images: the class probabilities' mean of the classes' text embeddings.

    Args:
        config: The ``vision_encoder`` of config.json.
        weights: The weights, float32, by the names of the checkpoint's README.
    """

    def __init__(self, config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.normalization = Normalization(config["image_mean"], config["image_std"])
        blocks = [_InvertedResidual(block, weights, f"blocks.{index}") for index, block in enumerate(config["blocks"])]
        self.features = nn.Sequential(_Convolution(weights, "stem", stride=2), *blocks, _Convolution(weights, "head"))
        self.classifier_weight = nn.Buffer(weights["classifier.weight"])
        self.classifier_bias = nn.Buffer(weights["classifier.bias"])
        self.semantic_projection = nn.Buffer(weights["semantic_projection.weight"])
        self.temperature = float(config["temperature"])

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Embed images.

        Args:
            pixel_values: uint8, (batch_size, 3, height, width), RGB; height and width multiples of 32.

        Returns:
            float32, (batch_size, embedding_dim), rows of unit length.
        """
        pixels = self.normalization(pixel_values).to(self.classifier_weight.dtype)  # (batch_size, 3, height, width)
        features = self.features(pixels).mean((2, 3))  # (batch_size, head_channels)
        logits = functional.linear(features, self.classifier_weight, self.classifier_bias)  # (batch_size, num_classes)
        probabilities = torch.softmax(at_least_float32(logits) / self.temperature, -1)
        return functional.normalize(probabilities @ at_least_float32(self.semantic_projection), dim=-1)


def dequantize(qweight: NDArray[np.uint8], scales: NDArray[np.float16]) -> NDArray[np.float32]:
    """Undo the checkpoint's 4-bit quantization.

    Args:
        qweight: The quantized weights: uint8, (rows, columns / 2), two columns per byte, the even column in the low
            nibble.
        scales: The scales of the blocks: float16, (rows, columns / 32).

    Returns:
        float32, (rows, columns).
    """
    nibbles = np.empty((qweight.shape[0], qweight.shape[1] * 2), np.float32)
    nibbles[:, 0::2] = qweight & 0x0F
    nibbles[:, 1::2] = qweight >> 4
    return (nibbles - _ZERO_POINT) * np.repeat(scales.astype(np.float32), _BLOCK_SIZE, axis=1)


def load_weights(path: Path) -> dict[str, Tensor]:
    """Read and dequantize ``model.safetensors``.

    Returns:
        float32 tensors by their names in the file, without the suffixes of the quantization.

    Raises:
        CheckpointError: The file is missing or damaged.
    """
    try:
        stored = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot read the weights {path}: {error}") from error
    weights = {}
    for name, value in stored.items():
        if name.endswith(".qweight"):
            base = name.removesuffix(".qweight")
            weights[base] = torch.from_numpy(dequantize(value, stored[f"{base}.scales"]))
        elif not name.endswith(".scales"):
            weights[name] = torch.from_numpy(value.astype(np.float32))
    return weights


def load(source: CheckpointSource, limits: Limits) -> Checkpoint:
    """Load a lychee-mini checkpoint.

    Args:
        source: The checkpoint. Its folder holds config.json, model.safetensors, tokenizer.json and reference.npz.
        limits: What the deployment admits.

    Raises:
        CheckpointError: A file is missing or damaged, or does not fit the others.
    """
    folder, config = source.folder, source.config
    weights = load_weights(folder / "model.safetensors")
    try:
        text_encoder = TextEncoder(config["text_encoder"], _below(weights, "text_encoder."))
        vision_encoder = VisionEncoder(config["vision_encoder"], _below(weights, "vision_encoder."))
        heads = {modality: _make_head(constants) for modality, constants in config["scoring_head"].items()}
        tokenizer_json = (folder / "tokenizer.json").read_text(encoding="utf-8")
        with np.load(folder / "reference.npz") as reference:
            images = reference["pixel_values"]
    except (KeyError, RuntimeError, OSError, ValueError) as error:
        raise CheckpointError(f"the checkpoint in {folder} is incomplete or inconsistent: {error}") from error
    text, vision = config["text_encoder"], config["vision_encoder"]
    parts = DualEncoder(
        text_encoder=text_encoder,
        vision_encoder=vision_encoder,
        heads=heads,
        embedding_dim=config["embedding_dim"],
        text=TextFormat(
            vocab_size=text["vocab_size"],
            pad_token_id=text["pad_token_id"],
            buckets=text_buckets(source, limits, text["max_position_embeddings"]),
            query_prefix=text["query_prefix"],
            document_prefix=text["document_prefix"],
        ),
        image=CropSpec(
            height=vision["image_size"],
            width=vision["image_size"],
            resample=vision["resample"],
            resize_shortest_edge=vision["resize_shortest_edge"],
        ),
    )

    def load_reference() -> ReferenceEncoders:
        return _load_reference(parts, tokenizer_json, images)

    if not source.weights:
        text_encoder.to("meta")
        vision_encoder.to("meta")
    return build_checkpoint(source, "lychee_mini", limits, parts, tokenizer_json, load_reference)


def _make_head(constants: Mapping[str, float]) -> ScoringHead:
    """Make the head of one modality from its Platt scaling: ``bias`` and ``text_scale``, ``image_scale`` or both."""
    scales = [constants[name] for name in ("text_scale", "image_scale") if name in constants]
    return ScoringHead(scales, constants["bias"])


def _below(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


def _load_reference(parts: DualEncoder, tokenizer_json: str, images: NDArray[np.uint8]) -> ReferenceEncoders:
    """Make the reference encoders: torch with the tokenizer and transformers' image processor.

    They compute in float64: rounded for the manifest, their scores are the same whatever the order in which a CPU adds.

    Args:
        parts: The parts of the loaded model.
        tokenizer_json: The content of a ``tokenizers`` file.
        images: The preprocessed images: uint8, (num_images, 3, height, width).
    """
    tokenizer = Tokenizer.from_str(tokenizer_json)
    tokenizer.enable_truncation(parts.text.max_tokens)
    tokenizer.enable_padding(pad_id=parts.text.pad_token_id, pad_to_multiple_of=BUCKETS[0])
    text_encoder, vision_encoder = (copy.deepcopy(part).double() for part in (parts.text_encoder, parts.vision_encoder))
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": getattr(parts.image, "resize_shortest_edge", parts.image.height)},
        crop_size={"height": parts.image.height, "width": parts.image.width},
    )

    @torch.no_grad()
    def embed_texts(texts: Sequence[str]) -> Tensor:
        encodings = tokenizer.encode_batch(list(texts))
        ids = torch.tensor([encoding.ids for encoding in encodings])
        return cast(Tensor, text_encoder(ids, torch.tensor([encoding.attention_mask for encoding in encodings])))

    @torch.no_grad()
    def embed_image(image: Image.Image) -> Tensor:
        return cast(Tensor, vision_encoder(torch.from_numpy(prepare_image(processor, image)[None])))

    pngs = [_shrink(image) for image in images[:_GOLDEN_IMAGES]]
    pixels = np.concatenate([images, np.stack([prepare_image(processor, decode(png)) for png in pngs])])
    with torch.no_grad():
        embeddings = vision_encoder(torch.from_numpy(pixels))
    return ReferenceEncoders(embed_texts, embed_image, pixels, embeddings, pngs)


def _shrink(pixel_values: NDArray[np.uint8]) -> bytes:
    """Encode a preprocessed image, uint8, (3, height, width), as a small PNG file."""
    image = Image.fromarray(pixel_values.transpose(1, 2, 0))
    return encode(image.resize((_GOLDEN_IMAGE_SIZE, _GOLDEN_IMAGE_SIZE), Image.Resampling.LANCZOS))


FAMILY = Family(name="lychee_mini", model_types=("lychee_mini",), load=load, checkpoints=("lychee-mini",))

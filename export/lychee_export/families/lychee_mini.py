"""lychee-mini: a bilingual text encoder and an ImageNet vision encoder in one embedding space.

The text encoder is multilingual-e5-small with 4-bit weights, the vision encoder EfficientNet-Lite0, whose class
probabilities weight the classes' text embeddings.

Source: checkpoints/lychee_mini/README.md, the specification, and config.json beside it.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError
from safetensors.numpy import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional
from transformers import BertConfig, BertModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from ..errors import CheckpointError
from ..signature import SCORE_OUTPUTS, Axis, ModelSignature, Tensors, TensorSpec
from .family import Checkpoint, GoldenPair, Piece

__all__ = ["ScoringHead", "TextEncoder", "VisionEncoder", "dequantize", "load", "load_weights"]

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
_TEXT_BATCH = 32
_IMAGE_BATCH = 16
_TEXT_TOKENS_PER_RUN = 2048
_IMAGES_PER_RUN = 4
"""A server that was sent full batches of the longest texts and images then stays at 1.0 GB instead of 1.6 GB."""
_BUCKETS = (16, 32, 64, 128, 256, 512)

_GOLDEN_IMAGE_SIZE = 128
_QUERIES = ("一只猫", "hot drink in the morning", "怎么退款", "a yellow flower", "breakfast table")
_TEXTS = (
    "退款流程：在订单页面点击申请退款",
    "The cat sleeps on the sofa all day.",
    "A cup of espresso wakes you up.",
    "火箭从发射台升空",
    "The palace was built in the fifteenth century.",
    "Dahlias bloom in late summer and come in yellow, orange and red.",
    "小猫喜欢晒太阳",
)
_GOLDEN_TEXT_PAIRS = ((2, 0), (0, 6), (1, 2), (1, 4))
"""Indices of (query, text) of the golden pairs: two languages, matches and a mismatch."""
_GOLDEN_IMAGE_PAIRS = ((0, 0), (1, 0), (1, 1), (4, 1))
"""Indices of (query, reference image) of the golden pairs: the images are a cat and a cup of coffee. The last pair
scores 0.69: unlike a clear match, it moves when the pixels are only a little wrong."""


class TextEncoder(nn.Module):
    """Embed token sequences: mean pooling over the attention mask, unit length, centred, unit length.

    Args:
        config: ``text_encoder`` of config.json.
        weights: float32, by the names of ``transformers.BertModel`` without a pooler, and ``center``.
    """

    def __init__(self, config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        bert_config = BertConfig(**{name: config[name] for name in _BERT_CONFIG_NAMES})
        bert_config._attn_implementation = "eager"
        self.bert = BertModel(bert_config, add_pooling_layer=False)
        self.bert.load_state_dict({name: value for name, value in weights.items() if name != "center"})
        self.center = nn.Buffer(weights["center"])

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Embed texts.

        Args:
            input_ids: int64, (batch_size, sequence_length).
            attention_mask: int64, (batch_size, sequence_length), 1 for a token, 0 for padding.

        Returns:
            float32, (batch_size, embedding_dim), rows of unit length.
        """
        hidden = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(hidden.dtype)  # (batch_size, sequence_length, 1)
        mean = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1.0)  # (batch_size, hidden_size)
        return functional.normalize(functional.normalize(mean, dim=-1) - self.center, dim=-1)


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
        config: ``vision_encoder`` of config.json.
        weights: float32, by the names of the checkpoint's README.
    """

    def __init__(self, config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.mean = nn.Buffer(torch.tensor(config["image_mean"]).reshape(3, 1, 1))
        self.std = nn.Buffer(torch.tensor(config["image_std"]).reshape(3, 1, 1))
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
        pixels = (pixel_values.float() - self.mean) / self.std  # (batch_size, 3, height, width)
        features = self.features(pixels).mean((2, 3))  # (batch_size, head_channels)
        logits = functional.linear(features, self.classifier_weight, self.classifier_bias)  # (batch_size, num_classes)
        probabilities = torch.softmax(logits / self.temperature, -1)
        return functional.normalize(probabilities @ self.semantic_projection, dim=-1)


class ScoringHead(nn.Module):
    """Score a query's embedding against the embeddings of a document's parts.

    Args:
        constants: ``bias`` and ``text_scale``, ``image_scale`` or both: the Platt scaling of one modality.
    """

    def __init__(self, constants: Mapping[str, float]) -> None:
        super().__init__()
        self.scales = [constants[name] for name in ("text_scale", "image_scale") if name in constants]
        self.bias = constants["bias"]

    def forward(self, query_embedding: Tensor, *embeddings: Tensor) -> tuple[Tensor, Tensor]:
        """Score pairs.

        Args:
            query_embedding: float32, (batch_size, embedding_dim), rows of unit length.
            embeddings: The same for the document's text, its image, or both in this order.

        Returns:
            relevance_score, float32, (batch_size, 1), in [0, 1]; logits, the same before the sigmoid, unbounded.
        """
        logits = torch.full((1, 1), self.bias)  # (1, 1)
        for scale, embedding in zip(self.scales, embeddings, strict=True):
            logits = logits + scale * (query_embedding * embedding).sum(-1, keepdim=True)  # (batch_size, 1)
        return torch.sigmoid(logits), logits


def dequantize(qweight: NDArray[np.uint8], scales: NDArray[np.float16]) -> NDArray[np.float32]:
    """Undo the checkpoint's 4-bit quantization.

    Args:
        qweight: uint8, (rows, columns / 2), two columns per byte, the even column in the low nibble.
        scales: float16, (rows, columns / 32).

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


def load(folder: Path, config: Mapping[str, Any]) -> Checkpoint:
    """Load a lychee-mini checkpoint.

    Args:
        folder: Holds config.json, model.safetensors, tokenizer.json and reference.npz.
        config: The content of config.json.

    Raises:
        CheckpointError: A file is missing or damaged, or does not fit the others.
    """
    weights = load_weights(folder / "model.safetensors")
    try:
        text_encoder = TextEncoder(config["text_encoder"], _below(weights, "text_encoder."))
        vision_encoder = VisionEncoder(config["vision_encoder"], _below(weights, "vision_encoder."))
        heads = {modality: ScoringHead(constants) for modality, constants in config["scoring_head"].items()}
        tokenizer_json = (folder / "tokenizer.json").read_text(encoding="utf-8")
        with np.load(folder / "reference.npz") as reference:
            images = reference["pixel_values"]
    except (KeyError, RuntimeError, OSError, ValueError) as error:
        raise CheckpointError(f"the checkpoint in {folder} is incomplete or inconsistent: {error}") from error
    pieces, ensembles = _sign(config, text_encoder, vision_encoder, heads)
    reference_model = _Reference(config, tokenizer_json, {piece.signature.name: piece.module for piece in pieces})
    return Checkpoint(
        model_id="lychee-mini",
        revision=hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()[:12],
        family="lychee_mini",
        pipeline="dual_encoder",
        pieces=pieces,
        ensembles=ensembles,
        ensemble_rows=reference_model.ensemble_rows(images),
        buckets=_BUCKETS,
        preprocessing={
            "embedding_dim": config["embedding_dim"],
            "text": {
                "query_prefix": config["text_encoder"]["query_prefix"],
                "document_prefix": config["text_encoder"]["document_prefix"],
                "pad_token_id": config["text_encoder"]["pad_token_id"],
                "max_tokens": config["text_encoder"]["max_position_embeddings"],
                "buckets": list(_BUCKETS),
            },
            "image": {
                "height": config["vision_encoder"]["image_size"],
                "width": config["vision_encoder"]["image_size"],
                "resize_shortest_edge": config["vision_encoder"]["resize_shortest_edge"],
                "resample": config["vision_encoder"]["resample"],
            },
        },
        tokenizer_json=tokenizer_json,
        golden_pairs=reference_model.golden_pairs(images),
    )


def _below(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


def _sign(
    config: Mapping[str, Any], text_encoder: nn.Module, vision_encoder: nn.Module, heads: Mapping[str, nn.Module]
) -> tuple[tuple[Piece, ...], tuple[ModelSignature, ...]]:
    """Declare the family's tensor contract."""
    text, vision, dim = config["text_encoder"], config["vision_encoder"], config["embedding_dim"]
    sequence = Axis("sequence_length", text["max_position_embeddings"])
    size = vision["image_size"]
    input_ids = TensorSpec(
        "input_ids", "int64", (sequence,), pad_value=text["pad_token_id"], maximum=text["vocab_size"] - 1
    )
    attention_mask = TensorSpec("attention_mask", "int64", (sequence,), maximum=1)
    pixel_values = TensorSpec("pixel_values", "uint8", (3, size, size))
    query_embedding = TensorSpec("query_embedding", "float32", (dim,))
    text_embedding = TensorSpec("text_embedding", "float32", (dim,))
    image_embedding = TensorSpec("image_embedding", "float32", (dim,))

    def sample_text(rng: np.random.Generator, rows: int) -> Tensors:
        lengths = rng.integers(1, _BUCKETS[0] + 1, rows)
        mask = np.arange(_BUCKETS[0]) < lengths[:, None]
        ids = rng.integers(text["pad_token_id"] + 1, text["vocab_size"], mask.shape)
        return {"input_ids": np.where(mask, ids, text["pad_token_id"]), "attention_mask": mask.astype(np.int64)}

    def sample_images(rng: np.random.Generator, rows: int) -> Tensors:
        return {"pixel_values": rng.integers(0, 256, (rows, 3, size, size), dtype=np.uint8)}

    text_signature = ModelSignature(
        "text_encoder",
        (input_ids, attention_mask),
        (text_embedding,),
        _TEXT_BATCH,
        encoder=True,
        max_run_elements=_TEXT_TOKENS_PER_RUN,
    )
    vision_signature = ModelSignature(
        "vision_encoder",
        (pixel_values,),
        (image_embedding,),
        _IMAGE_BATCH,
        encoder=True,
        max_run_elements=_IMAGES_PER_RUN * 3 * size * size,
    )
    pieces = [
        Piece(text_signature, text_encoder.eval(), sample_text),
        Piece(vision_signature, vision_encoder.eval(), sample_images),
    ]
    ensembles = []
    for modality, encoders in (
        ("text", (text_signature,)),
        ("image", (vision_signature,)),
        ("image_text", (text_signature, vision_signature)),
    ):
        embeddings = tuple(encoder.outputs[0] for encoder in encoders)

        def sample_embeddings(
            rng: np.random.Generator, rows: int, names: tuple[str, ...] = tuple(spec.name for spec in embeddings)
        ) -> Tensors:
            vectors = rng.standard_normal((1 + len(names), rows, dim)).astype(np.float32)
            vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
            return dict(zip(("query_embedding", *names), vectors, strict=True))

        head = ModelSignature(f"scoring_head_{modality}", (query_embedding, *embeddings), SCORE_OUTPUTS, _TEXT_BATCH)
        pieces.append(Piece(head, heads[modality].eval(), sample_embeddings))
        ensembles.append(
            ModelSignature(
                f"rerank_{modality}",
                (query_embedding, *(tensor for encoder in encoders for tensor in encoder.inputs)),
                SCORE_OUTPUTS,
                min(encoder.max_batch_size for encoder in encoders),
                steps=(*encoders, head),
            )
        )
    return tuple(pieces), tuple(ensembles)


class _Reference:
    """The reference implementation: torch in float32 with the tokenizer and transformers' image processor."""

    def __init__(self, config: Mapping[str, Any], tokenizer_json: str, modules: Mapping[str, nn.Module]) -> None:
        self._modules = modules
        self._text = config["text_encoder"]
        self._tokenizer = Tokenizer.from_str(tokenizer_json)
        self._tokenizer.enable_truncation(self._text["max_position_embeddings"])
        self._tokenizer.enable_padding(pad_id=self._text["pad_token_id"], pad_to_multiple_of=_BUCKETS[0])
        vision = config["vision_encoder"]
        self._processor = CLIPImageProcessorPil(
            size={"shortest_edge": vision["resize_shortest_edge"]},
            crop_size={"height": vision["image_size"], "width": vision["image_size"]},
            do_rescale=False,
            do_normalize=False,
        )

    def ensemble_rows(self, images: NDArray[np.uint8]) -> dict[str, Tensors]:
        """Make one row for each text; queries and images repeat in turn."""
        count = len(_TEXTS)
        queries = [_QUERIES[index % len(_QUERIES)] for index in range(count)]
        query = {"query_embedding": self._run("text_encoder", self._tokenize("query_prefix", queries)).numpy()}
        texts = self._tokenize("document_prefix", list(_TEXTS))
        pixels = {"pixel_values": images[np.arange(count) % len(images)]}
        return {
            "rerank_text": query | texts,
            "rerank_image": query | pixels,
            "rerank_image_text": query | texts | pixels,
        }

    def golden_pairs(self, images: NDArray[np.uint8]) -> tuple[GoldenPair, ...]:
        """Score the golden pairs; the images are small, so that the manifest is."""
        pngs = [_shrink(image) for image in images[: 1 + max(image for _, image in _GOLDEN_IMAGE_PAIRS)]]
        pairs = [self._score(_QUERIES[query], _TEXTS[text], None) for query, text in _GOLDEN_TEXT_PAIRS]
        pairs += [self._score(_QUERIES[query], None, pngs[image]) for query, image in _GOLDEN_IMAGE_PAIRS]
        return (*pairs, self._score(_QUERIES[1], _TEXTS[2], pngs[1]))

    def _score(self, query: str, text: str | None, image_png: bytes | None) -> GoldenPair:
        embeddings = [self._run("text_encoder", self._tokenize("query_prefix", [query]))]
        if text is not None:
            embeddings.append(self._run("text_encoder", self._tokenize("document_prefix", [text])))
        if image_png is not None:
            image = Image.open(io.BytesIO(image_png))
            pixels = self._processor(image, return_tensors="np")["pixel_values"]  # (1, 3, height, width)
            embeddings.append(self._run("vision_encoder", {"pixel_values": pixels.astype(np.uint8)}))
        modality = "_".join(name for name, part in (("image", image_png), ("text", text)) if part is not None)
        with torch.no_grad():
            relevance_score, _ = self._modules[f"scoring_head_{modality}"](*embeddings)
        return GoldenPair(query, round(float(relevance_score), 6), text, image_png)

    def _tokenize(self, prefix: str, texts: list[str]) -> Tensors:
        encodings = self._tokenizer.encode_batch([self._text[prefix] + text for text in texts])
        return {
            "input_ids": np.array([encoding.ids for encoding in encodings], np.int64),
            "attention_mask": np.array([encoding.attention_mask for encoding in encodings], np.int64),
        }

    def _run(self, model: str, inputs: Tensors) -> Tensor:
        with torch.no_grad():
            return cast(Tensor, self._modules[model](*(torch.from_numpy(value) for value in inputs.values())))


def _shrink(pixel_values: NDArray[np.uint8]) -> bytes:
    """Encode a preprocessed image, uint8, (3, height, width), as a small PNG file."""
    image = Image.fromarray(pixel_values.transpose(1, 2, 0))
    image = image.resize((_GOLDEN_IMAGE_SIZE, _GOLDEN_IMAGE_SIZE), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=True)
    return stream.getvalue()

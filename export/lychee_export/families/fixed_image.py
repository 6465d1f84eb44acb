"""Images of one fixed size: how the client makes them, and how the graph normalizes them."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import torch
from lychee_client.manifest import CropSpec, Resampling, StretchSpec
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from transformers.image_processing_backends import PilBackend

from lychee_export.checkpoint.source import CheckpointSource
from lychee_export.contract.signature import TensorSpec
from lychee_export.errors import CheckpointError

__all__ = [
    "FixedImageSpec",
    "Normalization",
    "PooledVisionEncoder",
    "image_tensor",
    "load_processor",
    "prepare_image",
    "read_format",
    "read_resampling",
]

_RESAMPLING: dict[int, Resampling] = {1: "lanczos", 2: "bilinear", 3: "bicubic"}
"""Names of Pillow's resampling filters in the manifest."""


FixedImageSpec: TypeAlias = CropSpec | StretchSpec
"""How the client makes an image of one fixed size."""


def image_tensor(spec: FixedImageSpec) -> TensorSpec:
    """Declare the encoder's input."""
    return TensorSpec("pixel_values", "uint8", (3, spec.height, spec.width))


class Normalization(nn.Module):
    """Scale bytes and normalize the channels, in float32 whatever the encoder computes in.

    Args:
        mean: The mean of each channel, subtracted after scaling.
        std: The standard deviation of each channel, by which the scaled values less the mean are divided.
        rescale_factor: The factor that bytes are multiplied by first.
    """

    def __init__(self, mean: list[float], std: list[float], rescale_factor: float = 1.0) -> None:
        super().__init__()
        # Plain attributes: buffers would be rounded when the encoder becomes float16.
        self.mean = torch.tensor(mean).reshape(-1, 1, 1)
        self.std = torch.tensor(std).reshape(-1, 1, 1)
        self.rescale_factor = rescale_factor

    @classmethod
    def of(cls, processor: Any) -> Normalization:
        """Take the constants of an image processor."""
        rescale_factor = float(processor.rescale_factor) if processor.do_rescale else 1.0
        if not processor.do_normalize:
            return cls([0.0] * 3, [1.0] * 3, rescale_factor)
        return cls(list(processor.image_mean), list(processor.image_std), rescale_factor)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Normalize images.

        Args:
            pixel_values: uint8, (batch_size, 3, height, width), RGB.

        Returns:
            float32, of the same shape.
        """
        pixels = pixel_values.float()
        if self.rescale_factor != 1:
            pixels = pixels * self.rescale_factor
        return (pixels - self.mean) / self.std


class PooledVisionEncoder(nn.Module):
    """Embed images of the one size by what the vision model pools.

    Args:
        vision_model: The vision model of a transformers model; its weights are shared, not copied.
        normalization: The normalization that the checkpoint's image processor does.
        projection: What follows pooling, shared too; None where nothing does.
    """

    def __init__(self, vision_model: nn.Module, normalization: Normalization, projection: nn.Module | None = None):
        super().__init__()
        self.normalization = normalization
        self.vision_model = vision_model
        self.visual_projection = projection or nn.Identity()

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Embed images.

        Args:
            pixel_values: uint8, (batch_size, 3, height, width), RGB.

        Returns:
            float32, (batch_size, embedding_dim), rows of unit length.
        """
        features = self.vision_model(pixel_values=self.normalization(pixel_values)).pooler_output
        return functional.normalize(self.visual_projection(features).float(), dim=-1)


def load_processor(source: CheckpointSource, processor_class: type[PilBackend]) -> Any:
    """Load the checkpoint's image processor, the one that computes with Pillow; its defaults if no file names others.

    Raises:
        CheckpointError: The file is damaged.
    """
    config = source.read_json("preprocessor_config.json") or source.read_json("processor_config.json").get(
        "image_processor", {}
    )
    try:
        return processor_class.from_dict(config) if config else processor_class()
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"cannot read the image processor in {source.folder}: {error}") from error


def read_format(source: CheckpointSource, processor: Any, height: int, width: int) -> FixedImageSpec:
    """Say how the client does what the image processor does.

    Args:
        source: The checkpoint, named in messages.
        processor: The image processor of the checkpoint.
        height: The height of the images that the model reads, in pixels.
        width: The width of the images that the model reads, in pixels.

    Raises:
        CheckpointError: The processor makes images of another size than the model reads, or in a way that the client
            does not know.
    """
    size, crop = processor.size, processor.crop_size if getattr(processor, "do_center_crop", False) else None
    edge = None
    if processor.do_resize and size.height and size.width and crop in (None, size):
        made = (size.height, size.width)
    elif processor.do_resize and size.shortest_edge and not size.longest_edge and crop is not None:
        edge = int(size.shortest_edge)
        made = (crop.height, crop.width)
    else:
        raise CheckpointError(
            f"the image processor in {source.folder} has do_resize {processor.do_resize}, size {size} and crop {crop}; "
            "expected a height and a width without a crop, or a shortest edge with one"
        )
    if made != (height, width) or (edge is not None and edge < max(made)):
        raise CheckpointError(
            f"the image processor in {source.folder} makes images of {made[0]} x {made[1]} pixels"
            f"{f' from a shortest edge of {edge}' if edge else ''}, the model reads {height} x {width}; correct "
            "preprocessor_config.json"
        )
    resample = read_resampling(source, processor)
    return StretchSpec(height, width, resample) if edge is None else CropSpec(height, width, edge, resample)


def read_resampling(source: CheckpointSource, processor: Any) -> Resampling:
    """Name the processor's resampling filter.

    Raises:
        CheckpointError: The client does not have it.
    """
    try:
        return _RESAMPLING[int(processor.resample)]
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"the image processor in {source.folder} has resample {processor.resample!r}; expected one of "
            f"{', '.join(f'{number} ({name})' for number, name in _RESAMPLING.items())}"
        ) from error


def prepare_image(processor: Any, image: Image.Image) -> NDArray[np.uint8]:
    """Preprocess an image as the client does: all but scaling and normalization.

    Returns:
        uint8, (3, height, width).
    """
    pixels = processor(image, do_rescale=False, do_normalize=False, return_tensors="np")["pixel_values"]
    return np.asarray(pixels[0]).astype(np.uint8)

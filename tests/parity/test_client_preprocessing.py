"""The client's preprocessing against the reference processor and tokenizer."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from lychee_client import Image
from lychee_client.manifest.image_spec import CropSpec
from lychee_export.families import Checkpoint
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

SPEC = CropSpec(height=224, width=224, resize_shortest_edge=256, resample="bicubic")
SIZES = [(480, 360), (360, 480), (224, 224), (256, 256), (255, 257), (37, 29), (1, 1), (900, 226), (1280, 321), (3, 11)]


def reference(image: PIL.Image.Image) -> np.ndarray:
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": 256}, crop_size={"height": 224, "width": 224}, do_rescale=False, do_normalize=False
    )
    pixels = processor(image, return_tensors="np")["pixel_values"]
    return np.asarray(pixels[0]).astype(np.uint8)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_sizes_are_resized_and_cropped_as_by_the_reference(size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    image = PIL.Image.fromarray(pixels)
    np.testing.assert_array_equal(Image.from_pil(image).prepare(SPEC).pixel_values, reference(image))


@pytest.mark.parametrize("convert", [lambda i: i.convert("L"), lambda i: i.convert("P"), lambda i: i.convert("CMYK")])
def test_modes_are_converted_as_by_the_reference(
    photos: Path, convert: Callable[[PIL.Image.Image], PIL.Image.Image]
) -> None:
    with PIL.Image.open(photos / "cat.jpg") as photo:
        image = convert(photo)
    np.testing.assert_array_equal(Image.from_pil(image).prepare(SPEC).pixel_values, reference(image))


def test_every_photo_is_bit_equal(photos: Path) -> None:
    paths = sorted(photos.glob("*.jpg"))
    assert len(paths) == 10
    for path in paths:
        with PIL.Image.open(path) as image:
            np.testing.assert_array_equal(Image.from_path(path).prepare(SPEC).pixel_values, reference(image))


def test_extreme_aspect_ratio_differs_by_less_than_a_pixel_of_shift() -> None:
    """A smooth gradient moves by its slope at most where the client crops before it resizes."""
    ramp = np.tile(np.linspace(0, 255, 2000).astype(np.uint8)[None, :, None], (40, 1, 3))
    image = PIL.Image.fromarray(ramp)
    difference = Image.from_pil(image).prepare(SPEC).pixel_values.astype(int) - reference(image).astype(int)
    assert np.abs(difference).max() <= 1


def test_golden_images_survive_the_way_through_the_manifest(checkpoint: Checkpoint) -> None:
    for pair in checkpoint.make_reference().golden_pairs:
        if pair.document.image_png is not None:
            image = PIL.Image.open(io.BytesIO(pair.document.image_png))
            np.testing.assert_array_equal(
                Image.from_bytes(pair.document.image_png).prepare(SPEC).pixel_values, reference(image)
            )

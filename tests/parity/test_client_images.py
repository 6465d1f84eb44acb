"""The client's images of every kind against the reference processors: the largest difference is 0."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import PIL.Image
import pytest
from lychee_client import Image, InvalidInputError
from lychee_client.manifest.image_spec import CropSpec, PatchSpec, StretchSpec
from lychee_client.preprocessing.image import _decode
from lychee_client.preprocessing.pixels import smart_resize, to_rgb
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil
from transformers.models.chinese_clip.image_processing_pil_chinese_clip import ChineseCLIPImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.qwen2_vl import image_processing_pil_qwen2_vl
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

RAW = {"do_rescale": False, "do_normalize": False}
SIZES = [(640, 480), (480, 640), (37, 29), (1920, 1080), (3000, 200), (28, 28), (15, 900), (1, 1), (225, 224), (70, 42)]
MODES = ["L", "RGBA", "P", "CMYK", "1", "LA"]  # gray of 16 bits, which the reference reads as white, is scaled instead
QWEN2 = PatchSpec(14, 2, 56 * 56, 512 * 512, "bicubic", (32768,), 2, 8)
QWEN3 = PatchSpec(16, 2, 64 * 64, 512 * 512, "bicubic", (32768,), 2, 8)
SMALL = PatchSpec(14, 2, 112 * 112, 140 * 140, "bicubic", (32768,), 2, 8)


def make_image(size: tuple[int, int], mode: str = "RGB") -> PIL.Image.Image:
    """Return noise on a gradient, with all values of every channel."""
    generator = np.random.default_rng(size[0])
    ramp = np.linspace(0, 200, size[0] * size[1]).reshape(size[1], size[0], 1)
    pixels = (ramp + generator.integers(0, 56, (size[1], size[0], 3))).astype(np.uint8)
    image = PIL.Image.fromarray(pixels)
    if mode in ("RGBA", "LA"):
        alpha = PIL.Image.fromarray(generator.integers(0, 256, size[::-1], np.uint8))
        image = image.convert(mode)
        image.putalpha(alpha)
        return image
    return image.convert(mode)


def fixed_size(processor: Callable[..., dict[str, list[np.ndarray]]], image: PIL.Image.Image) -> np.ndarray:
    return np.asarray(processor(image, return_tensors="np")["pixel_values"][0])


def assert_equal(ours: np.ndarray, reference: np.ndarray) -> None:
    """Compare values, not bytes: some references are float32 although nothing was rescaled."""
    assert ours.dtype == np.uint8
    assert ours.shape == reference.shape
    assert np.abs(ours.astype(np.float64) - reference).max() == 0


STRETCHED = {
    "siglip": (SiglipImageProcessorPil(size={"height": 224, "width": 224}, **RAW), StretchSpec(224, 224, "bicubic")),
    "siglip bilinear": (
        SiglipImageProcessorPil(size={"height": 64, "width": 64}, resample=2, **RAW),
        StretchSpec(64, 64, "bilinear"),
    ),
    "siglip lanczos": (
        SiglipImageProcessorPil(size={"height": 64, "width": 64}, resample=1, **RAW),
        StretchSpec(64, 64, "lanczos"),
    ),
    "blip": (BlipImageProcessorPil(**RAW), StretchSpec(384, 384, "bicubic")),
    "chinese clip": (
        ChineseCLIPImageProcessorPil(size={"height": 224, "width": 224}, do_center_crop=False, **RAW),
        StretchSpec(224, 224, "bicubic"),
    ),
    "oblong": (BlipImageProcessorPil(size={"height": 30, "width": 50}, **RAW), StretchSpec(30, 50, "bicubic")),
}


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", STRETCHED)
def test_stretched_images_are_those_of_the_reference(name: str, size: tuple[int, int]) -> None:
    processor, spec = STRETCHED[name]
    image = make_image(size)
    assert_equal(Image.from_pil(image).prepare(spec).pixel_values, fixed_size(processor, image))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["siglip", "blip"])
def test_stretched_images_of_every_mode_are_those_of_the_reference(name: str, mode: str) -> None:
    """Transparency and 16 bits become RGB in our way first: the reference drops the one and cuts off the other."""
    processor, spec = STRETCHED[name]
    image = make_image((61, 47), mode)
    plain = image if mode in ("L", "CMYK", "P", "1") else to_rgb(image)
    assert_equal(Image.from_pil(image).prepare(spec).pixel_values, fixed_size(processor, plain))


@pytest.mark.parametrize("edges", [(224, 224), (256, 224), (336, 336), (225, 97)], ids=str)
@pytest.mark.parametrize(
    "size", [(640, 480), (480, 640), (37, 29), (500, 333), (1, 1), (225, 224), (401, 101)], ids=str
)
@pytest.mark.parametrize("make", [CLIPImageProcessorPil, ChineseCLIPImageProcessorPil])
def test_cropped_images_are_those_of_the_reference(
    make: type[CLIPImageProcessorPil], size: tuple[int, int], edges: tuple[int, int]
) -> None:
    shortest, crop = edges
    processor = make(size={"shortest_edge": shortest}, crop_size={"height": crop, "width": crop}, **RAW)
    image = make_image(size)
    prepared = Image.from_pil(image).prepare(CropSpec(crop, crop, shortest, "bicubic"))
    assert_equal(prepared.pixel_values, fixed_size(processor, image))


def reference_patches(image: PIL.Image.Image, spec: PatchSpec) -> tuple[np.ndarray, tuple[int, ...]]:
    """Return the first of the two equal frames, (num_patches, patch_bytes), and the grid."""
    processor = Qwen2VLImageProcessorPil(
        size={"shortest_edge": spec.min_pixels, "longest_edge": spec.max_pixels},
        patch_size=spec.patch_size,
        merge_size=spec.merge_size,
        **RAW,
    )
    outputs = processor(image, return_tensors="np")
    frames = np.asarray(outputs["pixel_values"]).reshape(-1, 3, 2, spec.patch_size**2)
    np.testing.assert_array_equal(frames[:, :, 0], frames[:, :, 1])
    return frames[:, :, 0].reshape(len(frames), -1), tuple(outputs["image_grid_thw"][0].tolist())


@pytest.mark.parametrize("size", [*SIZES, (199, 1), (2000, 10), (42, 14), (98, 70)], ids=str)
@pytest.mark.parametrize("spec", [QWEN2, QWEN3, SMALL], ids=["qwen2", "qwen3", "small"])
def test_patches_are_those_of_the_reference(spec: PatchSpec, size: tuple[int, int]) -> None:
    image = make_image(size)
    prepared = Image.from_pil(image).prepare(spec)
    patches, grid = reference_patches(image, spec)
    assert_equal(prepared.pixel_values, patches)
    assert prepared.grid_thw == grid
    assert prepared.tokens == len(patches) // 4
    assert prepared.resized_to == (grid[2] * spec.patch_size, grid[1] * spec.patch_size)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("spec", [QWEN2, QWEN3], ids=["qwen2", "qwen3"])
def test_patches_of_every_mode_are_those_of_the_reference(spec: PatchSpec, mode: str) -> None:
    image = make_image((131, 97), mode)
    plain = image if mode in ("L", "CMYK", "P", "1") else to_rgb(image)
    assert_equal(Image.from_pil(image).prepare(spec).pixel_values, reference_patches(plain, spec)[0])


@pytest.mark.parametrize("spec", [QWEN2, QWEN3, SMALL], ids=["qwen2", "qwen3", "small"])
def test_smart_resize_is_that_of_the_reference_for_every_size(spec: PatchSpec) -> None:
    """Halves are rounded to even: 42 becomes 56 and 70 becomes 56 with blocks of 28."""
    edges = [*range(1, 150, 7), 14, 42, 70, 98, 126, 16, 48, 80, 200, 333, 784, 1500, 4000]
    for height in edges:
        for width in edges:
            if max(height, width) <= 200 * min(height, width):
                expected = image_processing_pil_qwen2_vl.smart_resize(
                    height, width, spec.block_size, spec.min_pixels, spec.max_pixels
                )
                assert smart_resize(height, width, spec) == expected, (height, width)


@pytest.mark.parametrize("size", [(201, 1), (10, 2001)], ids=str)
def test_longer_images_than_the_reference_takes_are_refused(size: tuple[int, int]) -> None:
    image = make_image(size)
    with pytest.raises(ValueError, match="aspect ratio"):
        reference_patches(image, QWEN2)
    with pytest.raises(InvalidInputError, match="at most 200 times"):
        Image.from_pil(image).prepare(QWEN2)


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize(
    ("spec", "size"),
    [
        pytest.param(SMALL, (1568, 1003), id="patches"),
        pytest.param(StretchSpec(100, 120, "bicubic"), (1568, 1003), id="stretch"),
        pytest.param(CropSpec(64, 64, 64, "bicubic"), (1502, 1001), id="crop"),
    ],
)
def test_large_jpeg_decoded_smaller_becomes_the_size_of_the_reference(
    spec: PatchSpec | StretchSpec | CropSpec, size: tuple[int, int], orientation: int
) -> None:
    """It is decoded at half its size, rounded up, from which another size would follow than from the whole."""
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    make_image((64, 40)).resize(size, PIL.Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=95, exif=exif)
    decoded, _ = _decode(buffer.getvalue(), spec)
    assert sorted(decoded.size) == [(edge + 1) // 2 for edge in sorted(size)]
    prepared = Image.from_bytes(buffer.getvalue()).prepare(spec)
    with PIL.Image.open(buffer) as opened:
        upright = PIL.Image.fromarray(np.asarray(opened))  # without metadata
    if orientation == 6:
        upright = upright.transpose(PIL.Image.Transpose.ROTATE_270)
    whole = Image.from_pil(upright).prepare(spec)
    assert (prepared.size, prepared.resized_to, prepared.grid_thw) == (upright.size, whole.resized_to, whole.grid_thw)
    assert np.abs(prepared.pixel_values.astype(int) - whole.pixel_values).max() <= 8

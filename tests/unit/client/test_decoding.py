"""What decoding an image takes: counted from its header, bounded, and the pixels stay the same."""

from __future__ import annotations

import io
import threading
from typing import Any

import numpy as np
import PIL.Image
import pytest
from lychee_client import ConfigurationError, Image, InvalidInputError
from lychee_client.manifest.image_spec import CropSpec, PatchSpec, StretchSpec
from lychee_client.preprocessing import decoding_memory as memory_module
from lychee_client.preprocessing import pixels as pixels_module
from lychee_client.preprocessing.decoding_memory import MIB, SMALL_BYTES, DecodingMemory, read_limit_bytes

CROP = CropSpec(height=224, width=224, resize_shortest_edge=256, resample="bicubic")
SPECS = (
    CROP,
    StretchSpec(height=64, width=96, resample="bilinear"),
    PatchSpec(14, 2, 56 * 56, 448 * 448, "bicubic", (1024,), 2, 16),
)
RNG = np.random.default_rng(0)


def encode(image: PIL.Image.Image, name: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, name, **options)
    return stream.getvalue()


def make(mode: str, size: tuple[int, int]) -> PIL.Image.Image:
    width, height = size
    image = PIL.Image.fromarray(RNG.integers(0, 256, (height, width, 4), np.uint8))
    if mode == "I;16":
        return PIL.Image.fromarray(RNG.integers(0, 65536, (height, width)).astype(np.uint16))
    return image if mode == "RGBA" else image.convert("RGB").convert(mode)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: type(spec).__name__)
@pytest.mark.parametrize("mode", ["L", "P", "1", "LA", "I;16", "RGB", "RGBA"])
@pytest.mark.parametrize("size", [(301, 499), (640, 111), (97, 700), (30, 41)])
def test_rows_at_a_time_give_the_same_pixels(
    monkeypatch: pytest.MonkeyPatch, spec: Any, mode: str, size: tuple[int, int]
) -> None:
    data = encode(make(mode, size))
    whole = Image.from_bytes(data).prepare(spec)
    monkeypatch.setattr(pixels_module, "STRIP_PIXELS", 1999)
    in_strips = Image.from_bytes(data).prepare(spec)
    np.testing.assert_array_equal(in_strips.pixel_values, whole.pixel_values)
    assert in_strips.sizes == whole.sizes


def test_a_palette_with_transparency_is_converted_alike_in_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(make("P", (301, 499)), transparency=3)
    whole = Image.from_bytes(data).prepare(CROP).pixel_values
    monkeypatch.setattr(pixels_module, "STRIP_PIXELS", 1999)
    np.testing.assert_array_equal(Image.from_bytes(data).prepare(CROP).pixel_values, whole)


@pytest.mark.parametrize(
    ("data", "pixel_bytes"),
    [
        (encode(make("L", (1000, 1000))), 1),
        (encode(make("RGB", (1000, 1000))), 4),
        (encode(make("RGBA", (1000, 1000))), 4),
        (encode(make("RGB", (1000, 1000)), "WEBP"), 16),
        (encode(make("RGB", (1000, 1000)), "JPEG", progressive=True, subsampling=0), 4 + 6),
        (encode(make("RGB", (1000, 1000)), "JPEG", progressive=True, subsampling=2), 4 + 3),
        (encode(make("L", (1000, 1000)), "JPEG", progressive=True), 1 + 2),
    ],
)
def test_the_header_tells_what_decoding_takes(data: bytes, pixel_bytes: int) -> None:
    narrow = 256 * 1000 * 4
    assert Image.from_bytes(data).weigh(CROP) == pytest.approx(pixel_bytes * 1000 * 1000 + narrow, rel=0.01)


def test_a_jpeg_takes_what_it_is_decoded_to() -> None:
    data = encode(make("RGB", (2000, 2000)).resize((4000, 4000)), "JPEG")
    assert Image.from_bytes(data).weigh(CROP) == 2000 * 2000 * 4 + 256 * 2000 * 4


def test_turning_an_image_takes_a_copy() -> None:
    image = make("RGB", (500, 400))
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    plain, turned = encode(image), encode(image, exif=exif)
    assert Image.from_bytes(turned).weigh(CROP) >= Image.from_bytes(plain).weigh(CROP) + 500 * 400 * 4


def test_a_prepared_image_weighs_nothing() -> None:
    image = Image.from_bytes(encode(make("RGB", (50, 40))))
    assert image.weigh(CROP) > 0
    image.prepare(CROP)
    assert image.weigh(CROP) == 0


def test_an_image_above_the_whole_budget_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_module, "_shared", [DecodingMemory(MIB)])
    data = encode(make("RGB", (600, 600)))
    monkeypatch.setattr(PIL.Image.Image, "load", lambda image: pytest.fail("it was decoded"))
    with pytest.raises(InvalidInputError, match=r"takes 2 MiB while it is decoded, the limit is 1 MiB \(LYCHEE_DEC"):
        Image.from_bytes(data).prepare(CROP)


def test_memory_is_taken_once() -> None:
    memory = DecodingMemory(4 * SMALL_BYTES)
    assert memory.take(3 * SMALL_BYTES)
    assert not memory.take(2 * SMALL_BYTES)
    assert memory.take(SMALL_BYTES)  # small images never wait
    assert memory.take(SMALL_BYTES)
    memory.give(3 * SMALL_BYTES)
    assert memory.take(2 * SMALL_BYTES)


def test_holding_memory_waits_for_it() -> None:
    memory = DecodingMemory(4 * SMALL_BYTES)
    entered = threading.Event()

    def hold() -> None:
        with memory.hold(3 * SMALL_BYTES):
            entered.set()

    with memory.hold(2 * SMALL_BYTES):
        thread = threading.Thread(target=hold)
        thread.start()
        assert not entered.is_set()
    thread.join(30)
    assert entered.is_set()


def test_the_budget_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LYCHEE_DECODING_MB", raising=False)
    assert read_limit_bytes() == 256 * MIB
    monkeypatch.setenv("LYCHEE_DECODING_MB", "512")
    assert read_limit_bytes() == 512 * MIB
    for wrong in ("0", "-1", "a lot"):
        monkeypatch.setenv("LYCHEE_DECODING_MB", wrong)
        with pytest.raises(ConfigurationError, match="LYCHEE_DECODING_MB is"):
            read_limit_bytes()

"""Images: sources, modes, limits, geometry."""

import io
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from lychee_client import Image, InvalidInputError
from lychee_client.manifest.image_spec import CropSpec
from lychee_client.preprocessing import formats
from lychee_client.preprocessing import image as image_module
from lychee_client.preprocessing.pixels import preprocess

SPEC = CropSpec(height=224, width=224, resize_shortest_edge=256, resample="bicubic")
RED, WHITE = (255, 0, 0), (255, 255, 255)


def encode(image: PIL.Image.Image, file_format: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def load(data: bytes) -> np.ndarray:
    return Image.from_bytes(data).prepare(SPEC).pixel_values


def colours(pixels: np.ndarray) -> set[tuple[int, ...]]:
    return {tuple(int(value) for value in colour) for colour in np.unique(pixels.reshape(3, -1), axis=1).T}


def rgba(alpha: int) -> PIL.Image.Image:
    return PIL.Image.new("RGBA", (50, 40), (*RED, alpha))


def transparent_palette() -> bytes:
    image = PIL.Image.new("P", (50, 40), 0)
    image.putpalette([*RED, 0, 0, 255])
    return encode(image, transparency=0)


def animated_gif() -> bytes:
    frames = [PIL.Image.new("RGB", (50, 40), colour) for colour in (RED, (0, 0, 255))]
    return encode(frames[0], "GIF", save_all=True, append_images=frames[1:])


def sixteen_bits(value: int, file_format: str = "PNG") -> bytes:
    return encode(PIL.Image.fromarray(np.full((40, 50), value, np.uint16)), file_format)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        pytest.param(lambda: encode(PIL.Image.new("RGB", (50, 40), RED)), RED, id="rgb"),
        pytest.param(lambda: encode(rgba(255)), RED, id="rgba opaque"),
        pytest.param(lambda: encode(rgba(0)), WHITE, id="rgba transparent"),
        pytest.param(lambda: encode(rgba(51)), (255, 204, 204), id="rgba a fifth"),
        pytest.param(lambda: encode(rgba(0), "WEBP", lossless=True), WHITE, id="webp transparent"),
        pytest.param(lambda: encode(PIL.Image.new("LA", (50, 40), (0, 0))), WHITE, id="la transparent"),
        pytest.param(lambda: encode(PIL.Image.new("LA", (50, 40), (9, 255))), (9, 9, 9), id="la opaque"),
        pytest.param(transparent_palette, WHITE, id="palette transparent"),
        pytest.param(lambda: encode(PIL.Image.new("RGB", (50, 40), RED).quantize(4)), RED, id="palette"),
        pytest.param(lambda: encode(PIL.Image.new("RGB", (50, 40), RED), transparency=RED), WHITE, id="rgb colour key"),
        pytest.param(lambda: encode(PIL.Image.new("L", (50, 40), 7)), (7, 7, 7), id="gray"),
        pytest.param(lambda: encode(PIL.Image.new("1", (50, 40), 1)), WHITE, id="bilevel"),
        pytest.param(lambda: encode(PIL.Image.new("CMYK", (50, 40), (0, 255, 255, 0)), "TIFF"), RED, id="cmyk"),
        pytest.param(lambda: sixteen_bits(0x8080), (128,) * 3, id="16 bits"),
        pytest.param(lambda: sixteen_bits(65535), WHITE, id="16 bits full"),
        pytest.param(lambda: sixteen_bits(0x8080, "TIFF"), (128,) * 3, id="16 bits tiff"),
        pytest.param(lambda: sixteen_bits(0x8080, "PPM"), (128,) * 3, id="16 bits pgm"),
        pytest.param(animated_gif, RED, id="animated"),
        pytest.param(lambda: encode(PIL.Image.new("RGB", (50, 40), RED), "BMP"), RED, id="bmp"),
        pytest.param(lambda: encode(PIL.Image.new("RGB", (1, 1), RED)), RED, id="one pixel"),
        pytest.param(lambda: encode(PIL.Image.new("RGB", (20_000, 1), RED)), RED, id="20000 x 1"),
        pytest.param(lambda: encode(PIL.Image.new("RGB", (1, 20_000), RED)), RED, id="1 x 20000"),
        pytest.param(lambda: encode(PIL.Image.new("RGB", (20_000, 500), RED)), RED, id="20000 x 500"),
    ],
)
def test_every_kind_of_image_becomes_rgb(make: Callable[[], bytes], expected: tuple[int, int, int]) -> None:
    pixels = load(make())
    assert (pixels.shape, pixels.dtype) == ((3, 224, 224), np.uint8)
    assert pixels.flags.c_contiguous
    assert colours(pixels) == {expected}


# How the file must be stored for each orientation tag, so that the upright image has red on the left.
ORIENTATIONS = {
    1: None,
    2: PIL.Image.Transpose.FLIP_LEFT_RIGHT,
    3: PIL.Image.Transpose.ROTATE_180,
    4: PIL.Image.Transpose.FLIP_TOP_BOTTOM,
    5: PIL.Image.Transpose.TRANSPOSE,
    6: PIL.Image.Transpose.ROTATE_90,
    7: PIL.Image.Transpose.TRANSVERSE,
    8: PIL.Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "WEBP"])
def test_exif_orientation_is_honoured(orientation: int, file_format: str) -> None:
    quarters = np.zeros((60, 80, 3), np.uint8)
    quarters[:30, :40], quarters[:30, 40:], quarters[30:, :40], quarters[30:, 40:] = RED, (0, 255, 0), WHITE, 0
    upright = PIL.Image.fromarray(quarters)
    transposition = ORIENTATIONS[orientation]
    stored = upright if transposition is None else upright.transpose(transposition)
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if file_format == "WEBP" else {}
    np.testing.assert_array_equal(load(encode(stored, file_format, exif=exif, **options)), preprocess(upright, SPEC)[0])


def test_damaged_exif_does_not_cost_the_image() -> None:
    assert colours(load(encode(PIL.Image.new("RGB", (50, 40), RED), exif=b"Exif\x00\x00damaged"))) == {RED}


@pytest.mark.parametrize("size", [(480, 480), (451, 300), (300, 451), (1000, 251), (257, 1028), (33, 47), (224, 224)])
def test_preprocess_resizes_then_crops(size: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    short, long = min(size), max(size)
    scaled = int(256 * long / short)
    resized_size = (256, scaled) if size[0] <= size[1] else (scaled, 256)
    narrow = PIL.Image.fromarray(noise).resize((resized_size[0], size[1]), PIL.Image.Resampling.BICUBIC)
    resized = np.asarray(narrow.resize(resized_size, PIL.Image.Resampling.BICUBIC))  # width first on every Pillow
    top, left = (resized.shape[0] - 224) // 2, (resized.shape[1] - 224) // 2
    expected = resized[top : top + 224, left : left + 224].transpose(2, 0, 1)
    np.testing.assert_array_equal(preprocess(PIL.Image.fromarray(noise), SPEC)[0], expected)


@pytest.mark.parametrize("size", [(1600, 100), (100, 1600), (1001, 50), (3000, 300)])
def test_long_images_are_cropped_before_resizing_without_visible_change(size: tuple[int, int]) -> None:
    width, height = size
    y, x = np.mgrid[:height, :width] / 40
    smooth = np.stack([np.sin(x), np.cos(y), np.sin(x + y)], axis=2) * 100 + 128
    image = PIL.Image.fromarray(smooth.astype(np.uint8))
    scaled = int(256 * max(size) / min(size))
    resized = image.resize((scaled, 256) if width > height else (256, scaled), PIL.Image.Resampling.BICUBIC)
    left, top = (resized.width - 224) // 2, (resized.height - 224) // 2
    expected = np.asarray(resized.crop((left, top, left + 224, top + 224))).transpose(2, 0, 1)
    assert np.abs(preprocess(image, SPEC)[0].astype(int) - expected).max() <= 6


@pytest.mark.parametrize("size", [(20_000, 1), (1, 20_000), (5000, 700)])
def test_long_images_need_no_large_intermediate(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    resize = PIL.Image.Image.resize
    sizes = []

    def record(image: PIL.Image.Image, size: tuple[int, int], resample: int) -> PIL.Image.Image:
        sizes.append(size)
        return resize(image, size, resample)

    monkeypatch.setattr(PIL.Image.Image, "resize", record)
    preprocess(PIL.Image.new("RGB", size), SPEC)
    assert sorted(sizes[-1]) == [256, 1024]
    assert all(width * height <= 1024 * 1024 for width, height in sizes)


def test_sources_agree(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
    path = tmp_path / "photo.png"
    PIL.Image.fromarray(pixels).save(path)
    images = [
        Image.from_path(path),
        Image.from_path(str(path)),
        Image.from_bytes(path.read_bytes()),
        Image.from_pil(PIL.Image.fromarray(pixels)),
        Image.from_numpy(pixels),
    ]
    first, *others = (image.prepare(SPEC).pixel_values for image in images)
    for other in others:
        np.testing.assert_array_equal(other, first)


def test_from_numpy_takes_gray_and_copies() -> None:
    pixels = np.full((40, 50), 7, np.uint8)
    image = Image.from_numpy(pixels)
    pixels[:] = 9
    assert colours(image.prepare(SPEC).pixel_values) == {(7, 7, 7)}


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((3, 4, 5), np.uint8),
        np.zeros((1, 4, 4, 3), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros(4, np.uint8),
    ],
)
def test_from_numpy_refuses_other_arrays(pixels: np.ndarray) -> None:
    with pytest.raises(InvalidInputError, match="expected uint8"):
        Image.from_numpy(pixels)


def noise_file(file_format: str) -> bytes:
    return encode(PIL.Image.effect_noise((300, 300), 90).convert("RGB"), file_format)


def bomb(width: int, height: int) -> bytes:
    """Return a PNG whose header claims more pixels than its few bytes hold."""
    data = bytearray(encode(PIL.Image.new("L", (1, 1))))
    data[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(b"", "not a readable image", id="empty"),
        pytest.param(b"hello" * 50, "not a readable image", id="text"),
        pytest.param(noise_file("PNG")[:5000], "cannot be decoded", id="png cut off"),
        pytest.param(noise_file("JPEG")[:5000], "cannot be decoded", id="jpeg cut off"),
        pytest.param(noise_file("WEBP")[:5000], "not a readable image|cannot be decoded", id="webp cut off"),
        pytest.param(noise_file("PNG")[:20], "not a readable image", id="header cut off"),
        pytest.param(bomb(8001, 8000), "limit is 64000000", id="above the limit"),
        pytest.param(bomb(10_000, 10_000), "64000000 pixels allowed", id="Pillow warns"),
        pytest.param(bomb(60_000, 60_000), "64000000 pixels allowed", id="Pillow refuses"),
        pytest.param(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a readable image", id="eps"),
    ],
)
def test_unusable_bytes_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        load(data)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_bomb_is_refused_where_pillow_only_warns() -> None:
    with pytest.raises(InvalidInputError, match="limit is 64000000"):
        load(bomb(10_000, 10_000))


def test_pil_image_above_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_module, "MAX_PIXELS", 99)
    assert Image.from_pil(PIL.Image.new("RGB", (9, 11))).prepare(SPEC).pixel_values.shape == (3, 224, 224)
    with pytest.raises(InvalidInputError, match="10 x 10 pixels, the limit is 99"):
        Image.from_pil(PIL.Image.new("RGB", (10, 10))).prepare(SPEC)


def test_file_above_the_byte_limit_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(noise_file("PNG"))
    monkeypatch.setattr(image_module, "MAX_SIZE_BYTES", 1000)
    for image in (Image.from_path(path), Image.from_bytes(path.read_bytes())):
        with pytest.raises(InvalidInputError, match="limit is 1000"):
            image.prepare(SPEC)


def test_file_above_the_byte_limit_is_not_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(bytes(1001))
    monkeypatch.setattr(image_module, "MAX_SIZE_BYTES", 1000)
    monkeypatch.setattr(Path, "read_bytes", None)
    with pytest.raises(InvalidInputError, match="1001 bytes, the limit is 1000"):
        Image.from_path(path).prepare(SPEC)


def test_unusable_paths_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.jpg", tmp_path, "null\0byte"):
        with pytest.raises(InvalidInputError, match=r"cannot be read|not a regular file"):
            Image.from_path(path).prepare(SPEC)


def test_pixels_are_kept_for_the_same_spec_only() -> None:
    image = Image.from_numpy(np.zeros((40, 50), np.uint8))
    assert image.cached(SPEC) is None
    pixels = image.prepare(SPEC).pixel_values
    assert image.prepare(SPEC).pixel_values is pixels
    other = CropSpec(height=32, width=32, resize_shortest_edge=32, resample="bicubic")
    assert image.cached(other) is None
    assert image.prepare(other).pixel_values.shape == (3, 32, 32)


def large_jpeg(orientation: int = 1) -> bytes:
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    noise = PIL.Image.effect_noise((330, 250), 60).resize((3300, 2500), PIL.Image.Resampling.BICUBIC)
    return encode(noise.convert("RGB"), "JPEG", quality=90, exif=exif)


@pytest.mark.parametrize(
    ("orientation", "size", "resized"), [(1, (3300, 2500), (337, 256)), (6, (2500, 3300), (256, 337))]
)
def test_large_jpeg_is_decoded_smaller_and_reports_its_own_size(
    orientation: int, size: tuple[int, int], resized: tuple[int, int]
) -> None:
    data = large_jpeg(orientation)
    decoded, _ = image_module._decode(data, SPEC)
    assert sorted(decoded.size) == [1250, 1650]
    prepared = Image.from_bytes(data).prepare(SPEC)
    assert (prepared.size, prepared.resized_to) == (size, resized)


def test_large_jpeg_decoded_smaller_has_nearly_the_same_pixels() -> None:
    data = large_jpeg()
    with PIL.Image.open(io.BytesIO(data)) as opened:
        whole = Image.from_pil(opened.convert("RGB")).prepare(SPEC).pixel_values
    difference = np.abs(load(data).astype(int) - whole)
    assert 0 < difference.max() <= 2


def test_image_reports_its_sizes() -> None:
    prepared = Image.from_pil(PIL.Image.new("RGB", (480, 360))).prepare(SPEC)
    assert (prepared.size, prepared.resized_to) == ((480, 360), (341, 256))


def gradient(most: float, dtype: type) -> bytes:
    """Return a TIFF of gray values from 0 to `most`."""
    values = np.linspace(0, most, 300 * 300).reshape(300, 300)
    return encode(PIL.Image.fromarray(values.astype(dtype)), "TIFF")


@pytest.mark.parametrize(
    ("most", "dtype"), [(1, np.float32), (255, np.float32), (255, np.uint16), (65535, np.uint16), (65535, np.int32)]
)
def test_gray_values_of_any_depth_reach_from_black_to_white(most: float, dtype: type) -> None:
    pixels = load(gradient(most, dtype))
    assert pixels.min() < 40
    assert pixels.max() > 215


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (gradient(65535, np.float32), "floating-point pixels from 0 to 65535; expected 0 to 1, or 0 to 255"),
        (gradient(-1, np.float32), "floating-point pixels from -1 to 0;"),
        (gradient(np.nan, np.float32), "floating-point pixels from nan to nan;"),
        (gradient(2**31 - 1, np.int32), "pixels from 0 to 2147483647; expected 0 to 65535"),
        (gradient(-9, np.int32), "pixels from -9 to 0;"),
    ],
)
def test_gray_values_of_an_unknown_range_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        load(data)


def test_avif_is_read() -> None:
    image = Image.from_bytes(encode(PIL.Image.new("RGB", (40, 30), (200, 10, 10)), "AVIF"))
    assert image.prepare(SPEC).size == (40, 30)


def test_heic_is_read_with_the_extra_and_named_without(monkeypatch: pytest.MonkeyPatch) -> None:
    pillow_heif = pytest.importorskip("pillow_heif", reason="needs the extra heic")
    file = io.BytesIO()
    pillow_heif.from_pillow(PIL.Image.new("RGB", (40, 30), (200, 10, 10))).save(file)
    assert Image.from_bytes(file.getvalue()).prepare(SPEC).size == (40, 30)
    monkeypatch.setattr(formats, "list_formats", lambda: formats.FORMATS)
    with pytest.raises(InvalidInputError, match=r"its format is HEIC, which needs `pip install .*\[heic\]"):
        load(file.getvalue())


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "JPEG 2000"),
        (b"\xff\x0a\xfa", "JPEG XL"),
        (b"%PDF-1.7", "PDF"),
        (b"  <svg xmlns=", "SVG"),
        (b"8BPS\x00\x01", "Photoshop"),
        (b"\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00", "MP4"),
        (b"<!DOCTYPE html>", "a web page"),
    ],
)
def test_other_formats_are_refused_by_name(data: bytes, name: str) -> None:
    with pytest.raises(InvalidInputError, match=f"its format is {name}.*expected one of JPEG"):
        load(data)


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "AVIF"])
@pytest.mark.filterwarnings("ignore:Truncated File Read")
def test_damage_is_told_in_our_own_words(file_format: str) -> None:
    data = noise_file(file_format)
    for length in (20, 60, len(data) // 2):
        with pytest.raises(InvalidInputError) as raised:
            load(data[:length])
        assert "damaged or cut off" in str(raised.value) or "unknown format" in str(raised.value)

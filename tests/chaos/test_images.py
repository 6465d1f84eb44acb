"""Mutated images: each gets a score or an error of its own, and good neighbours keep their exact score."""

from __future__ import annotations

import base64
import io
import json
import random
from typing import Any, Final

import PIL.Image
import pytest
from lychee_client.preprocessing.formats import list_formats

from .conftest import IS_CHAOS, Call

SEED: Final = 14
IMAGES: Final = 32_000 if IS_CHAOS else 3200
PER_CALL: Final = 40
FORMATS: Final = [name for name in list_formats() if name != "HEIF"]
NUMBERS: Final = [b"\x00" * 4, b"\xff" * 4, b"\x7f\xff\xff\xff", b"\x00\x00\xff\xff"]

pytestmark = [  # what Pillow says of damaged files
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning"),
]


def make_files() -> list[bytes]:
    """Return small images of every format that is read, in several modes."""
    noise = PIL.Image.effect_noise((40, 30), 80)
    modes = {"RGB": noise.convert("RGB"), "L": noise, "P": noise.convert("P"), "RGBA": noise.convert("RGBA")}
    modes["I;16"] = noise.convert("I").point(lambda value: value * 257).convert("I;16")
    files = []
    for name in FORMATS:
        for image in modes.values():
            buffer = io.BytesIO()
            try:
                image.save(buffer, name)
            except (OSError, ValueError, KeyError):  # the format has no such mode
                continue
            files.append(buffer.getvalue())
    return files


def mutate(data: bytes, files: list[bytes], rng: random.Random) -> bytes:
    """Damage a file as disks, networks and attackers do: the beginning, where sizes and types stand, most often."""
    mutated = bytearray(data)
    for _ in range(rng.randint(1, 6)):
        start = int(len(mutated) * rng.random() ** 3)
        kind = rng.randrange(7)
        if kind == 0:
            del mutated[start + 4 :]
        elif kind == 1:
            del mutated[start : start + rng.randint(1, 30)]
        elif kind == 2:
            mutated[start:start] = rng.randbytes(rng.randint(1, 30))
        elif kind == 3:
            mutated[start : start + 4] = rng.choice(
                [b"\x00" * 4, b"\xff" * 4, b"\x7f\xff\xff\xff", b"\x00\x00\xff\xff"]
            )
        elif kind == 4:
            other = rng.choice(files)
            mutated[start : start + 50] = other[start : start + 50]
        elif start < len(mutated):
            mutated[start] ^= 1 << rng.randrange(8)
    return bytes(mutated)


def to_document(data: bytes) -> dict[str, Any]:
    return {"image": f"data:image/png;base64,{base64.b64encode(data).decode()}"}


@pytest.mark.parametrize("part", range(4))
def test_damaged_images_cost_their_neighbours_nothing(call: Call, part: int) -> None:
    files = make_files()
    good = [to_document(data) for data in (files[0], files[len(files) // 2], files[-1])]
    good.append({"text": "a photo", **good[0]})
    alone = call("/v1/rerank", json.dumps({"query": "aaaa", "documents": good}).encode())[1]["results"]
    expected = {result["index"]: (result["relevance_score"], result["logit"]) for result in alone}
    assert set(expected) == set(range(len(good)))
    rng = random.Random(SEED + part)
    for _ in range(IMAGES // PER_CALL // 4):
        bad = [mutate(rng.choice(files), files, rng) for _ in range(PER_CALL)]
        documents = [*good, *map(to_document, bad)]
        status, answer = call("/v1/rerank", json.dumps({"query": "aaaa", "documents": documents}).encode())
        assert status == 200, answer
        told = [result["index"] for result in answer["results"]]
        assert sorted(told) == list(range(len(documents)))
        scores = {result["index"]: (result["relevance_score"], result["logit"]) for result in answer["results"]}
        for index in expected:
            assert scores[index] == expected[index]
        for failed in answer["errors"]:  # in our own words
            assert failed["message"].startswith(("the image ", "image ", "the image's ")), failed

"""Tensors through shared memory: the same answers, nothing left behind, and no harm where it does not work."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lychee_client import ConfigurationError, Image, LycheeClient
from lychee_client.transports.base import ControlRequest
from lychee_client.transports.shared_memory import SLOTS, SharedMemoryPool
from lychee_client.triton_key import KEY_HEADER, KEY_VARIABLE
from lychee_server import TritonServer

pytestmark = pytest.mark.triton


def regions(server: TritonServer) -> list[str]:
    url = f"http://{server.http_url}/v2/systemsharedmemory/status"
    with urllib.request.urlopen(urllib.request.Request(url, headers={KEY_HEADER: server.key})) as answer:
        return [region["name"] for region in json.load(answer)]


def new_images(count: int, seed: int) -> list[Image]:
    rng = np.random.default_rng(seed)
    return [Image.from_numpy(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)) for _ in range(count)]


@pytest.fixture(autouse=True)
def key(server: TritonServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, server.key)


@pytest.fixture(params=["grpc", "http"])
def url(request: pytest.FixtureRequest, server: TritonServer) -> str:
    return server.grpc_url if request.param == "grpc" else f"http://{server.http_url}"


@pytest.fixture
def sharing(url: str) -> Iterator[LycheeClient]:
    with LycheeClient(url, shared_memory=True, embedding_cache=None) as client:
        yield client


def sent_inline(client: LycheeClient) -> list[bool]:
    """Rank and return, per image request, whether its pixels travelled in it."""
    pool, seen = client._shared_memory, []
    assert pool is not None
    place = pool.place

    def note(request: Any) -> Any:
        slots = place(request)
        if "pixel_values" in getattr(request, "inputs", {}):
            seen.append("pixel_values" not in slots)
        return slots

    pool.place = note
    client.rerank("a cat", new_images(3, 1))
    return seen


def test_answers_are_those_without_it(url: str, sharing: LycheeClient, photos: Path) -> None:
    documents = [*(Image.from_path(path) for path in sorted(photos.glob("*.jpg"))), "a cat", *new_images(4, 2)]
    with LycheeClient(url, embedding_cache=None) as client:
        expected = client.rerank("一只猫", documents)
    assert sharing.rerank("一只猫", documents).results == expected.results
    assert sent_inline(sharing) == [False] * 3


def test_slots_are_used_again(sharing: LycheeClient) -> None:
    for seed in range(3):
        assert len(sharing.rerank("a cat", new_images(SLOTS // 2, seed)).results) == SLOTS // 2
    assert sent_inline(sharing) == [False] * 3


def test_first_calls_at_the_same_time_share_one_region(server: TritonServer, sharing: LycheeClient) -> None:
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda seed: sharing.rerank("a cat", new_images(2, seed)), range(6)))
    assert [len(answer.results) for answer in answers] == [2] * 6
    assert sent_inline(sharing) == [False] * 3


def test_closing_leaves_no_region_behind(server: TritonServer, url: str) -> None:
    before = regions(server)
    client = LycheeClient(url, shared_memory=True, embedding_cache=None)
    assert client.manifest()
    (region,) = set(regions(server)) - set(before)
    memory = Path("/dev/shm") / client._shared_memory._memory.name
    assert memory.exists()
    client.close()
    client.close()
    assert region not in regions(server)
    assert not memory.exists()


def test_server_that_forgot_the_region_gets_the_tensors_themselves(server: TritonServer, sharing: LycheeClient) -> None:
    expected = sharing.rerank("a cat", new_images(3, 1))
    (region,) = [name for name in regions(server) if name == sharing._shared_memory.name]
    url = f"http://{server.http_url}/v2/systemsharedmemory/region/{region}/unregister"
    urllib.request.urlopen(urllib.request.Request(url, headers={KEY_HEADER: server.key}, method="POST")).close()
    answer = sharing.rerank("a cat", new_images(3, 1))
    assert (answer.results, answer.errors) == (expected.results, ())
    assert sent_inline(sharing) == [True] * 3


def test_server_that_cannot_read_the_memory_is_a_configuration_error(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = ControlRequest("register_region", "elsewhere", {"key": "/elsewhere", "offset": 0, "byte_size": 4096})
    monkeypatch.setattr(SharedMemoryPool, "registration", elsewhere)
    with (
        LycheeClient(url, shared_memory=True, embedding_cache=None) as client,
        pytest.raises(ConfigurationError, match="server on this host"),
    ):
        client.rerank("a cat", ["a cat"])

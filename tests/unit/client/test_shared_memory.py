"""Shared memory: tensors of several slots, and what becomes of them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from lychee_client.transports.base import InferRequest
from lychee_client.transports.shared_memory import SLOT_BYTES, SLOTS, SharedMemoryPool


@pytest.fixture
def pool() -> Iterator[SharedMemoryPool]:
    """Make a pool that a server knows."""
    made = SharedMemoryPool()
    made.active = True
    yield made
    made.close()


def request(*slots: float) -> InferRequest:
    """Return a request with tensors that take so many slots."""
    rng = np.random.default_rng(0)
    tensors = {str(n): rng.integers(0, 256, int(size * SLOT_BYTES), dtype=np.uint8) for n, size in enumerate(slots)}
    return InferRequest("model", tensors, ())


def test_larger_tensors_lie_in_slots_in_a_row_and_overlap_with_none(pool: SharedMemoryPool) -> None:
    sent = request(1, 2.5, 0.5, 3)
    placed = pool.place(sent)
    assert [placed[name].offset // SLOT_BYTES for name in sent.inputs] == [0, 1, 4, 5]
    assert pool._memory.buf is not None
    for name, slot in placed.items():
        content = bytes(pool._memory.buf[slot.offset : slot.offset + slot.size_bytes])
        assert content == sent.inputs[name].tobytes()


def test_transposed_tensor_lies_there_in_its_own_order(pool: SharedMemoryPool) -> None:
    tensor = np.arange(2**14, dtype=np.float16).reshape(2**7, 2**7).T
    slot = pool.place(InferRequest("model", {"a": tensor}, ()))["a"]
    assert pool._memory.buf is not None
    assert bytes(pool._memory.buf[slot.offset : slot.offset + slot.size_bytes]) == tensor.tobytes()


def test_what_finds_no_room_travels_as_ever_and_room_comes_back(pool: SharedMemoryPool) -> None:
    first = pool.place(request(SLOTS - 2))
    assert pool.place(request(3)) == {}
    assert len(pool.place(request(1, 1))) == 2
    assert pool.place(request(1)) == {}
    pool.release(first, None)
    assert len(pool.place(request(SLOTS - 2))) == 1


def test_slots_of_a_request_that_was_given_up_are_not_used_again(pool: SharedMemoryPool) -> None:
    pool.release(pool.place(request(SLOTS)), TimeoutError())
    assert pool.place(request(1)) == {}

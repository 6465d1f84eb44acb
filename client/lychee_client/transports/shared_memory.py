"""Tensors for a server on the same host: put where it can read them, instead of into the request.

Source: https://github.com/triton-inference-server/server/blob/r24.10/docs/protocol/extension_shared_memory.md
"""

from __future__ import annotations

import secrets
import threading
from dataclasses import dataclass
from typing import Final

import numpy as np

from lychee_client._errors import InferenceError
from lychee_client.transports.base import Ambiguity, ControlRequest, InferRequest, Request, Tensor, TransportError

SLOT_BYTES: Final = 256 * 1024  # the pixels of an image of 224 x 224 take 147 KiB
SLOTS: Final = 128
# Below this size the reference is hardly shorter than the tensor.
MIN_BYTES: Final = 4096
# These answers say that the server has done with the request.
_FINAL: Final = (InferenceError, Ambiguity.REJECTED_OR_NOT_READY)


@dataclass(frozen=True, slots=True)
class Slot:
    """Where a tensor lies.

    Attributes:
        region: The name under which the server knows the memory.
        offset: Where in the region the tensor begins, in bytes.
        size_bytes: The size of the tensor, in bytes.
    """

    region: str
    offset: int
    size_bytes: int


class SharedMemoryPool:
    """A region of `SLOTS` slots; a larger tensor takes several in a row.

    Safe to use from several threads; close it after use.

    Attributes:
        name: The name of the region.
        active: Whether the server knows the region.
    """

    def __init__(self) -> None:
        from multiprocessing.shared_memory import SharedMemory  # few clients use it

        self.name = f"lychee-{secrets.token_hex(8)}"
        self.active = False
        self._memory = SharedMemory(create=True, size=SLOTS * SLOT_BYTES)
        self._begun = False
        self._lock = threading.Lock()
        self._free = [True] * SLOTS

    @property
    def registration(self) -> ControlRequest:
        """The request that makes the region known to the server."""
        size = SLOTS * SLOT_BYTES
        parameters: dict[str, str | int] = {"key": f"/{self._memory.name}", "offset": 0, "byte_size": size}
        return ControlRequest("register_region", self.name, parameters)

    def begin_registration(self) -> bool:
        """Return whether the caller is to register the region: the server takes a name only once."""
        with self._lock:
            begun, self._begun = self._begun, True
        return not begun

    def end_registration(self) -> None:
        """Let the next caller try again if the region is not active."""
        self._begun = self.active

    def place(self, request: Request) -> dict[str, Slot]:
        """Copy the request's larger tensors into free slots; return them by input name. The others travel as ever."""
        if not self.active or not isinstance(request, InferRequest) or request.inline:
            return {}
        placed = {}
        for name, tensor in request.inputs.items():
            if tensor.dtype != object and tensor.nbytes >= MIN_BYTES:
                slot = self._copy(tensor)
                if slot is not None:
                    placed[name] = slot
        return placed

    def release(self, slots: dict[str, Slot], error: BaseException | None) -> None:
        """Take back the slots of a request that was answered.

        A request that was given up may still be read by the server, which would then cache a wrong answer under the
        old tensor's hash: its slots are not used again.

        Args:
            slots: The slots of one request, by input name.
            error: What the request failed with; None if it was answered.
        """
        if error is None or (isinstance(error, TransportError) and error.kind in _FINAL):
            with self._lock:
                for slot in slots.values():
                    self._mark(slot.offset // SLOT_BYTES, slot.size_bytes, free=True)

    def close(self) -> None:
        """Free the memory. The server keeps its view until the region is unregistered."""
        self.active = False
        with self._lock:
            self._memory.close()
            self._memory.unlink()
            self._free = [False] * SLOTS

    def _copy(self, tensor: Tensor) -> Slot | None:
        data = np.ascontiguousarray(tensor).reshape(-1).view(np.uint8)
        with self._lock:
            first = self._find(len(data))
            if first is None:
                return None
            self._mark(first, len(data), free=False)
            offset = first * SLOT_BYTES
            assert self._memory.buf is not None  # it is, until close()
            self._memory.buf[offset : offset + len(data)] = data.data
        return Slot(self.name, offset, len(data))

    def _find(self, size_bytes: int) -> int | None:
        """Return the number of the first of enough free slots in a row; None where there are none."""
        needed, run = _count_slots(size_bytes), 0
        for number, free in enumerate(self._free):
            run = run + 1 if free else 0
            if run == needed:
                return number - needed + 1
        return None

    def _mark(self, first: int, size_bytes: int, *, free: bool) -> None:
        count = _count_slots(size_bytes)
        self._free[first : first + count] = [free] * count


def _count_slots(size_bytes: int) -> int:
    return -(-size_bytes // SLOT_BYTES)

"""What both protocols say about tensors and time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tritonclient.utils import deserialize_bytes_tensor, triton_to_np_dtype

from lychee_client._errors import ContractError
from lychee_client.transports.base import Ambiguity, InferRequest, Request, Tensor, TransportError
from lychee_client.transports.shared_memory import SharedMemoryPool, Slot


def to_tensor(model_name: str, name: str, datatype: str, shape: Sequence[int], content: bytes | memoryview) -> Tensor:
    """Return a tensor that a server sent.

    Args:
        model_name: The model that sent the tensor.
        name: The name of the tensor.
        datatype: Triton's name of the tensor's type.
        shape: The shape that the server declared.
        content: The bytes of the tensor: row-major, little-endian; strings with their lengths.

    Raises:
        ContractError: Bytes and declared shape do not fit together.
    """
    try:
        if datatype == "BYTES":
            tensor = deserialize_bytes_tensor(content)
        else:
            tensor = np.frombuffer(content, triton_to_np_dtype(datatype))
        shaped: Tensor = tensor.reshape(tuple(shape))
        return shaped
    except Exception as error:  # numpy and struct errors of many kinds
        raise ContractError(
            f"{model_name} sent {len(content)} bytes as {name}, declared as {datatype} {tuple(shape)}",
            model_name=model_name,
        ) from error


def to_bytes(tensor: Tensor) -> bytes:
    """Return the bytes of a tensor, row-major: those that it was made of, not copied, where it is all of them."""
    owner: object = tensor
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if isinstance(owner, bytes) and len(owner) == tensor.nbytes and tensor.flags.c_contiguous:
        return owner
    return tensor.tobytes()


def place_tensors(pool: SharedMemoryPool | None, request: Request) -> dict[str, Slot]:
    """Return the slots of the tensors that go into shared memory, by input name."""
    return {} if pool is None else pool.place(request)


def release_slots(pool: SharedMemoryPool | None, request: Request, slots: dict[str, Slot], outcome: object) -> None:
    """Take the slots back when the server has done with a request, whether its caller has waited for it or not.

    A request that was refused because of them, and then answered without them, tells that the server has forgotten
    the region: it is not used any more.
    """
    if pool is None or not isinstance(request, InferRequest):
        return
    error = outcome if isinstance(outcome, BaseException) else None
    if isinstance(error, TransportError) and error.kind is Ambiguity.REJECTED_OR_NOT_READY:
        error.shared_memory = bool(slots)
    pool.release(slots, error)
    if request.inline and error is None:
        pool.active = False


def queue_timeout_us(timeout_s: float) -> int:
    """Return Triton's request parameter `timeout`: how long a request may wait in a queue, in microseconds."""
    return max(1, round(1e6 * timeout_s))

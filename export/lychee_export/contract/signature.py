"""The tensor contract: what every model of a family takes and gives.

Declared once by the family modules; ONNX files, ``config.pbtxt`` and the manifest are derived from it, the client
is tested against it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["BATCH_AXIS", "SCORE_OUTPUTS", "Axis", "Dtype", "ModelSignature", "TensorSpec", "Tensors", "hash_tensors"]

Dtype = Literal["float16", "float32", "int64", "string", "uint8"]

Tensors = dict[str, NDArray[np.generic]]
"""Arrays by tensor name, the batch axis first."""

BATCH_AXIS = "batch_size"
"""Name of the leading axis of every ONNX input and output of a model with ``max_batch_size`` > 0."""


@dataclass(frozen=True)
class Axis:
    """An axis of variable size.

    Args:
        name: The axis' name in the ONNX file; axes of one name have one size within a request.
        buckets: The sizes to which the client pads, ascending, so that the server can merge requests.
        multiple: The number that every size is a multiple of.
    """

    name: str
    buckets: tuple[int, ...]
    multiple: int = 1

    def __post_init__(self) -> None:
        ascending = list(self.buckets) == sorted(set(self.buckets)) and all(size > 0 for size in self.buckets)
        if not self.buckets or not ascending or any(size % self.multiple for size in self.buckets):
            raise ValueError(f"{self.name}: buckets must be ascending multiples of {self.multiple}, got {self.buckets}")

    @property
    def maximum(self) -> int:
        """The largest size."""
        return self.buckets[-1]


@dataclass(frozen=True)
class TensorSpec:
    """One input or output tensor.

    Args:
        name: The tensor's name in the ONNX file, in ``config.pbtxt`` and on the wire.
        dtype: The type of the elements.
        shape: The sizes without the batch axis.
        pad_value: What fills a variable axis up to the next bucket.
        maximum: The largest value of an integer input, where a larger one has no meaning; values start at 0.
    """

    name: str
    dtype: Dtype
    shape: tuple[int | Axis, ...]
    pad_value: int = 0
    maximum: int | None = None

    def __post_init__(self) -> None:
        for size in self.shape:
            if isinstance(size, int) and size < 1:
                raise ValueError(f"{self.name}: a fixed axis has at least one element, got shape {self.shape}")

    @property
    def triton_dims(self) -> tuple[int, ...]:
        """The sizes as Triton writes them: -1 for an axis of variable size."""
        return tuple(size if isinstance(size, int) else -1 for size in self.shape)


SCORE_OUTPUTS = (TensorSpec("relevance_score", "float32", (1,)), TensorSpec("logits", "float32", (1,)))
"""What every ensemble gives for a pair: ``relevance_score`` = sigmoid(``logits``), or what the family states. Both,
because in float32 the score is 1.0 from a logit of about 17 on, and because a calibration works on log-odds."""


@dataclass(frozen=True)
class ModelSignature:
    """One model of the repository.

    A tensor keeps its name through an ensemble unless ``names`` says otherwise, so the steps' signatures say how they
    connect.

    Args:
        name: The model's folder and its name on the wire.
        inputs: The input tensors, in the ONNX file's order.
        outputs: The output tensors, in the ONNX file's order.
        max_batch_size: The most rows in one request; 0 for a model without a batch axis.
        steps: The models of an ensemble in order; empty for a model with a file of its own.
        names: The names in an ensemble of those of its steps' tensors that have another one there.
        encoder: Whether the model does the heavy work: it runs on the accelerator and its answers are cached.
        max_run_elements: The most elements of one input in one run on a CPU; a larger batch runs in slices, which
            bounds the memory for activations. None sets no bound.
        run_input: The name of the input that ``max_run_elements`` counts, where the largest says nothing about the
            work, such as a text's zero row of image embeddings. None counts the largest.
        accelerated: Whether an encoder may run on the openvino accelerator. False where that computes something else,
            or compiles anew for every shape.
    """

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    max_batch_size: int
    steps: tuple[ModelSignature, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    encoder: bool = False
    max_run_elements: int | None = None
    run_input: str | None = None
    accelerated: bool = True

    def __post_init__(self) -> None:
        names = [tensor.name for tensor in (*self.inputs, *self.outputs)]
        if len(set(names)) != len(names):
            raise ValueError(f"{self.name}: tensor names must be unique, got {names}")
        if self.run_input is not None and self.run_input not in names[: len(self.inputs)]:
            raise ValueError(
                f"{self.name}: run_input is {self.run_input!r}, expected one of {names[: len(self.inputs)]}"
            )
        if self.max_batch_size < 0:
            raise ValueError(f"{self.name}: max_batch_size must be at least 0, got {self.max_batch_size}")
        for step in self.steps:
            if step.max_batch_size < self.max_batch_size:
                raise ValueError(
                    f"{self.name}: an ensemble's max_batch_size may not exceed that of a step, got "
                    f"{self.max_batch_size} with {step.max_batch_size} of {step.name}"
                )

    def input_names(self, step: ModelSignature) -> dict[str, str]:
        """Return what the inputs of a step are called in this ensemble."""
        return {spec.name: self.names.get(spec.name, spec.name) for spec in step.inputs}

    def output_names(self, step: ModelSignature) -> dict[str, str]:
        """Return what the outputs of a step are called in this ensemble, without those that nothing here takes."""
        taken = {spec.name for spec in self.outputs}.union(*(self.input_names(each).values() for each in self.steps))
        names = {spec.name: self.names.get(spec.name, spec.name) for spec in step.outputs}
        return {name: tensor for name, tensor in names.items() if tensor in taken}


def hash_tensors(samples: Mapping[str, tuple[Tensors, ...]]) -> str:
    """Return the SHA-256, 64 hex digits, of what the tensors of some models hold."""
    digest = hashlib.sha256()
    for batches in samples.values():
        for tensors in batches:
            for array in tensors.values():
                digest.update(repr((array.shape, array.dtype)).encode() + array.tobytes())
    return digest.hexdigest()

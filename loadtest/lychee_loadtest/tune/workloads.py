"""What to send to a model: inputs of every shape worth measuring, made up from its configuration and the manifest."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from lychee_client.manifest import Manifest, PatchSpec, TileSpec, count_read_tiles
from lychee_client.repository import read_manifest
from lychee_server.errors import RepositoryError
from lychee_server.repository import read_config
from tritonclient.grpc import model_config_pb2

__all__ = ["MODELS", "Modality", "Subject", "Workload", "make_inputs", "read_model_id", "read_subject"]

Modality: TypeAlias = Literal["text", "image"]
Tensors: TypeAlias = dict[str, npt.NDArray[Any]]

MODELS: Final[Mapping[Modality, str]] = {"text": "text_encoder", "image": "vision_encoder"}
LENGTHS: Final = (16, 64)  # a short title, a paragraph
DTYPES: Final[Mapping[str, type[np.generic]]] = {
    "TYPE_BOOL": np.bool_,
    "TYPE_UINT8": np.uint8,
    "TYPE_INT32": np.int32,
    "TYPE_INT64": np.int64,
    "TYPE_FP16": np.float16,
    "TYPE_FP32": np.float32,
}
FIRST_PLAIN_TOKEN: Final = 10  # below are padding and the like


@dataclass(frozen=True, slots=True)
class Workload:
    """One shape of a model's inputs.

    Attributes:
        name: The name in words, such as "64 tokens".
        shapes: The shape of a row for each input, with the input's name.
        grid: The height and width of the image in patches, for models that read patches; else None.
        run_input: The name of the input that `max_run_elements` counts; empty: the largest.
        row_elements: How many elements that input of a row has.
    """

    name: str
    shapes: tuple[tuple[str, tuple[int, ...]], ...]
    grid: tuple[int, int] | None = None
    run_input: str = ""

    @property
    def row_elements(self) -> int:
        """Return how many elements of a row `max_run_elements` counts."""
        return max(math.prod(shape) for name, shape in self.shapes if self.run_input in ("", name))


@dataclass(frozen=True, slots=True)
class Subject:
    """A model to tune.

    Attributes:
        modality: What its documents are.
        folder: The folder of the model in the user's repository.
        config: The ModelConfig message of `config.pbtxt`.
        workloads: The shapes of inputs to measure, those of the least work first.
    """

    modality: Modality
    folder: Path
    config: Any
    workloads: tuple[Workload, ...]

    @property
    def name(self) -> str:
        """Name of the model."""
        return self.folder.name


def read_subject(repository: Path, modality: Modality) -> Subject | None:
    """Read the model that does a modality's work; None if the repository has none.

    Raises:
        RepositoryError: Its configuration cannot be read, or has inputs that nothing here can make up.
    """
    folder = repository / MODELS[modality]
    path = folder / "config.pbtxt"
    if not path.is_file():
        return None
    config = read_config(folder)
    if config.max_batch_size < 1:
        raise RepositoryError(
            f"{path} has max_batch_size {config.max_batch_size}; expected at least 1 to tune batches."
        )
    unknown = [spec.name for spec in config.input if model_config_pb2.DataType.Name(spec.data_type) not in DTYPES]
    if unknown:
        raise RepositoryError(f"{path} has the input {unknown[0]}, whose type cannot be made up; expected numbers.")
    manifest = read_manifest(repository)
    workloads = _text_workloads(config, manifest) if modality == "text" else _image_workloads(config, manifest)
    return Subject(modality, folder, config, workloads)


def read_model_id(repository: Path) -> str:
    """Return the public name of the repository's model; without a manifest, the folder's name."""
    manifest = read_manifest(repository)
    return repository.absolute().name if manifest is None else manifest.model_id


def make_inputs(config: Any, workload: Workload, rows: int, rng: np.random.Generator) -> Tensors:
    """Make up the inputs of one request.

    Args:
        config: The ModelConfig message.
        workload: Says which shapes a row has.
        rows: How many rows the request has; at least 1.
        rng: The source of the values: different for every request.

    Returns:
        The tensors by name: (rows, *shape), values within the configuration's `maximum.*`.
    """
    tensors: Tensors = {}
    shapes = dict(workload.shapes)
    for spec in config.input:
        shape = (rows, *shapes[spec.name])
        dtype = DTYPES[model_config_pb2.DataType.Name(spec.data_type)]
        if spec.name == "image_grid_thw":
            tensors[spec.name] = _make_grid(shape, workload.grid)
        elif spec.name == "attention_mask":
            tensors[spec.name] = np.ones(shape, dtype)
        elif spec.name == "input_ids":
            # The upper half of a vocabulary holds the special tokens, image places among them.
            largest = _maximum(config, "input_ids") or 2 * FIRST_PLAIN_TOKEN
            tensors[spec.name] = rng.integers(min(FIRST_PLAIN_TOKEN, largest // 2), largest // 2 + 1, shape).astype(
                dtype
            )
        elif np.issubdtype(dtype, np.uint8):
            tensors[spec.name] = rng.integers(0, 256, shape, np.uint8)
        else:
            tensors[spec.name] = np.zeros(shape, dtype)  # no image; embeddings of one
    return tensors


def _text_workloads(config: Any, manifest: Manifest | None) -> tuple[Workload, ...]:
    longest = _maximum(config, "sequence_length") or max(LENGTHS)
    known = LENGTHS if manifest is None else manifest.text.buckets
    buckets = [size for size in known if size <= longest] or [longest]
    lengths = sorted({min(buckets, key=lambda bucket: abs(bucket - length)) for length in LENGTHS})
    run_input = config.parameters["run_input"].string_value if "run_input" in config.parameters else ""
    return tuple(Workload(f"{length} tokens", _shapes(config, length), run_input=run_input) for length in lengths)


def _image_workloads(config: Any, manifest: Manifest | None) -> tuple[Workload, ...]:
    (pixels,) = [spec for spec in config.input if spec.name == "pixel_values"]
    if -1 not in pixels.dims:
        return (Workload(" x ".join(map(str, pixels.dims[1:])), _shapes(config, 1)),)
    if manifest is not None and isinstance(manifest.image, TileSpec):
        counts = sorted({1, count_read_tiles(manifest.image.max_tiles)})
        return tuple(Workload(f"{count} tiles", _shapes(config, count)) for count in counts)
    spec = manifest.image if manifest is not None and isinstance(manifest.image, PatchSpec) else None
    most = _maximum(config, "num_patches") or (spec.buckets[-1] if spec else 256)
    buckets = [size for size in spec.buckets if size <= most] if spec else [most]
    workloads = []
    for patches in sorted({buckets[len(buckets) // 2], buckets[-1]}):
        block = spec.merge_size if spec else 1
        height = max(1, math.isqrt(patches) // block) * block
        grid = (height, max(1, patches // height // block) * block)  # padding fills the rest
        workloads.append(Workload(f"{patches} patches", _shapes(config, patches), grid))
    return tuple(workloads)


def _shapes(config: Any, free: int) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Return the shape of a row for each input; `free` is the size of an open axis, 1 in embeddings of images."""
    sizes = {spec.name: 1 if spec.name == "image_embeds" else free for spec in config.input}
    return tuple(
        (spec.name, tuple(sizes[spec.name] if dim == -1 else int(dim) for dim in spec.dims)) for spec in config.input
    )


def _make_grid(shape: tuple[int, ...], grid: tuple[int, int] | None) -> npt.NDArray[np.int64]:
    """Return one image per row, or none: (rows, images, 3)."""
    sizes = np.zeros(shape, np.int64)
    if grid is not None:
        sizes[:, 0] = (1, *grid)
    return sizes


def _maximum(config: Any, name: str) -> int:
    key = f"maximum.{name}"
    text = config.parameters[key].string_value if key in config.parameters else ""
    return int(text) if text.isascii() and text.isdigit() else 0

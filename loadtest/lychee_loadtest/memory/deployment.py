"""The models of a repository as memory sees them: files, instances, and what bounds a run."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from google.protobuf import json_format
from lychee_client.manifest import DEFAULT_ERROR_BUDGET
from lychee_client.repository import EXTERNAL_DATA_SUFFIX
from lychee_server import defaults
from lychee_server.errors import DeviceError
from lychee_server.execution import serve
from lychee_server.repository import check_repository, model_path, read_config

__all__ = ["IMAGE_INPUT", "TOKEN_AXIS", "ServedModel", "read_deployment"]

IMAGE_INPUT: Final = "pixel_values"
TOKEN_AXIS: Final = "sequence_length"
DEFAULT_AXIS_MAXIMUM: Final = 512
_MAXIMUM = "maximum."


@dataclass(frozen=True)
class ServedModel:
    """A model with a file of its own.

    Attributes:
        name: The name of the model.
        path: The path of the model file.
        config: The model's configuration, as Triton hands it to a backend.
        file_bytes: The size of the model file and of the external data beside it.
        instances: How many processes serve it, each with its own copy of everything.
        max_batch_size: The most rows in one execution; 0 without a batch axis.
        axes: The largest size of each axis of variable size, by name.
    """

    name: str
    path: Path
    config: Mapping[str, Any]
    file_bytes: int
    instances: int
    max_batch_size: int
    axes: Mapping[str, int]

    @property
    def reads_images(self) -> bool:
        """Whether pixels are among its inputs."""
        return any(entry["name"] == IMAGE_INPUT for entry in self.config.get("input", []))

    @property
    def wants_gpu(self) -> bool:
        """Whether it is to run on a GPU: of an instance's kind, or where `lychee load` has put it."""
        told = self.config.get("parameters", {}).get("execution", {}).get("string_value", "")
        kinds = {group.get("kind") for group in self.config.get("instance_group", [])}
        return "KIND_GPU" in kinds or told.startswith("cuda-")

    @property
    def size_axis(self) -> str | None:
        """Name of the axis whose size makes a row large: tokens, or else the first one; None: rows are equal."""
        return TOKEN_AXIS if TOKEN_AXIS in self.axes else next(iter(self.axes), None)


def read_deployment(
    repository: Path, config_name: str | None = None, *, choose: bool = True
) -> tuple[ServedModel, ...]:
    """Read the models that `lychee load` would load.

    Args:
        repository: The folder that has one folder per model.
        config_name: The variant of the models' configurations, as for `lychee load`.
        choose: Whether to choose what executes them, as `lychee load` does. The files are the same.

    Raises:
        RepositoryError: There is no such folder, no model in it, a configuration cannot be read, or a file is missing.
    """
    names = check_repository(repository, config_name)
    served = repository
    if choose:
        with contextlib.suppress(DeviceError):  # an export for GPUs can be planned where there is none
            served = serve(repository, config_name, DEFAULT_ERROR_BUDGET, defaults.usable_cache_dir()).path
    found = (_read_model(served / name, config_name) for name in names)
    return tuple(model for model in found if model is not None)


def _read_model(folder: Path, config_name: str | None) -> ServedModel | None:
    """Return a model, or None for an ensemble, which holds no memory of its own."""
    message = read_config(folder, config_name)
    if message.backend != "onnxruntime":
        return None
    file = model_path(folder, message)
    data = file.with_name(file.name + EXTERNAL_DATA_SUFFIX)
    inputs = {entry.name for entry in message.input}
    limits = {
        key.removeprefix(_MAXIMUM): int(value.string_value)
        for key, value in message.parameters.items()
        if key.startswith(_MAXIMUM)
    }
    axes = {name: limit for name, limit in sorted(limits.items()) if name not in inputs}
    if not axes and any(size == -1 for entry in message.input for size in entry.dims):
        axes = {TOKEN_AXIS: DEFAULT_AXIS_MAXIMUM}
    return ServedModel(
        name=folder.name,
        path=file,
        config=json_format.MessageToDict(message, preserving_proto_field_name=True),
        file_bytes=file.stat().st_size + (data.stat().st_size if data.is_file() else 0),
        instances=sum(group.count or 1 for group in message.instance_group) or 1,
        max_batch_size=message.max_batch_size,
        axes=axes,
    )

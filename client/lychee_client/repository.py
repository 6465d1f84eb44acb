"""A Triton model repository: its layout, which export, server and load tests share, and what serving a file takes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from lychee_client._errors import ConfigurationError, ContractError
from lychee_client.manifest.manifest import Manifest, parse_manifest

if TYPE_CHECKING:
    from tritonclient.grpc import model_config_pb2

__all__ = [
    "ASSETS_MODEL",
    "BUILD_SCRIPT",
    "EXTERNAL_DATA_SUFFIX",
    "MANIFEST_FILENAME",
    "MODEL_FILENAME",
    "TRITON_BYTES",
    "VALIDATION_FILENAME",
    "newest_version",
    "process_bytes",
    "read_config",
    "read_manifest",
    "version_folders",
]

ASSETS_MODEL: Final = "client_assets"
"""The model whose answers are the manifest and the tokenizer."""
MANIFEST_FILENAME: Final = "manifest.json"
MODEL_FILENAME: Final = "model.onnx"
EXTERNAL_DATA_SUFFIX: Final = ".data"
"""Ends the name of the file beside a model's that holds its weights, where they are too large for one file."""
VALIDATION_FILENAME: Final = "validation.json"
"""What an export has measured, for people; beside the models."""
BUILD_SCRIPT: Final = "build-tensorrt.sh"
"""Builds TensorRT's engines, where the export is for it; beside the models, where Triton reads no files."""

TRITON_BYTES: Final = 61_000_000
"""Triton itself after some hundred requests, without its models' processes; measured, see docs/how-to/memory.md."""
_WEIGHT_COPIES: Final = 2
_PROCESS_BYTES: Final = 64 << 20

_FIRST_VERSION: Final = 1


def version_folders(folder: Path) -> list[int]:
    """Return a model's versions, ascending; empty if there is no such folder.

    Triton ignores folders whose number begins with 0.
    """
    names = [child.name for child in folder.iterdir() if child.is_dir()] if folder.is_dir() else []
    return sorted(int(name) for name in names if name.isascii() and name.isdigit() and name[0] != "0")


def newest_version(folder: Path) -> Path:
    """Return the folder of the version of a model that Triton serves; without versions, where the first one belongs."""
    return folder / str(max(version_folders(folder), default=_FIRST_VERSION))


def read_config(folder: Path, config_name: str | None = None) -> model_config_pb2.ModelConfig:
    """Read the configuration of the model in a folder: the variant, if it has that, else `config.pbtxt`.

    Raises:
        ConfigurationError: There is none, or it is no configuration.
    """
    from google.protobuf import text_format  # with gRPC behind them, which most commands need not load
    from tritonclient.grpc import model_config_pb2

    variant = folder / "configs" / f"{config_name}.pbtxt"
    path = variant if config_name is not None and variant.is_file() else folder / "config.pbtxt"
    try:
        return text_format.Parse(path.read_text(encoding="utf-8"), model_config_pb2.ModelConfig())
    except (OSError, UnicodeDecodeError, text_format.ParseError) as error:
        raise ConfigurationError(f"{path} is not a Triton model configuration: {error}") from error


def read_manifest(repository: Path) -> Manifest | None:
    """Return what the newest export says about itself; None if it left no manifest that can be read."""
    try:
        path = newest_version(repository / ASSETS_MODEL) / MANIFEST_FILENAME
        return parse_manifest(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ContractError):
        return None


def process_bytes(file_bytes: int) -> int:
    """Estimate what the process of a model takes from its file alone, tensors of large batches aside.

    Measured with lychee-mini on 2026-11-22: twice the file, as stored and as the runtime lays it out, and 15 to 64 MiB
    more. `lychee memory` measures instead.
    """
    return _WEIGHT_COPIES * file_bytes + _PROCESS_BYTES

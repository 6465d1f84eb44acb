"""A repository's models as Triton finds them: configuration, and files of the newest version."""

from __future__ import annotations

from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from ..errors import RepositoryError

__all__ = ["newest_version", "read_config"]


def newest_version(repository: Path, model_name: str) -> Path:
    """Return the folder of the version that Triton serves.

    Raises:
        RepositoryError: There is none.
    """
    versions = [path for path in (repository / model_name).glob("[1-9]*") if path.name.isdecimal() and path.is_dir()]
    if not versions:
        raise RepositoryError(f"{repository / model_name} has no version folder; run `lychee export` again")
    return max(versions, key=lambda path: int(path.name))


def read_config(repository: Path, model_name: str) -> model_config_pb2.ModelConfig:
    """Read a model's ``config.pbtxt``.

    Raises:
        RepositoryError: There is none, or it is no configuration.
    """
    path = repository / model_name / "config.pbtxt"
    try:
        return text_format.Parse(path.read_text(encoding="utf-8"), model_config_pb2.ModelConfig())
    except (OSError, text_format.ParseError) as error:
        raise RepositoryError(f"{path} cannot be read: {error}; run `lychee export` again") from error

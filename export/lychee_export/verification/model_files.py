"""A repository's models as Triton finds them: their configurations."""

from __future__ import annotations

from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from lychee_export.errors import RepositoryIOError

__all__ = ["read_config"]


def read_config(repository: Path, model_name: str) -> model_config_pb2.ModelConfig:
    """Read a model's ``config.pbtxt``.

    Raises:
        RepositoryIOError: There is none, or it is no configuration.
    """
    path = repository / model_name / "config.pbtxt"
    try:
        return text_format.Parse(path.read_text(encoding="utf-8"), model_config_pb2.ModelConfig())
    except (OSError, text_format.ParseError) as error:
        raise RepositoryIOError(f"{path} cannot be read: {error}; run `lychee export` again") from error

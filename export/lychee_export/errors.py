"""What can go wrong while exporting."""

from __future__ import annotations

__all__ = ["CheckpointError", "ExportError", "OtherModelError", "ValidationError", "WriteError"]


class ExportError(Exception):
    """Base of all export errors; the message says what happened and what to do."""

    exit_code = 1


class CheckpointError(ExportError):
    """The checkpoint is missing, incomplete, or of an unknown family."""


class OtherModelError(ExportError):
    """The repository holds another model, and nobody said that it may be replaced."""

    exit_code = 2


class ValidationError(ExportError):
    """An exported model breaks the tensor contract or differs from its reference."""


class WriteError(ExportError):
    """The model repository cannot be written."""

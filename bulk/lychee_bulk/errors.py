"""Why a run ends early. What is wrong with one row is no exception of these: it is the row's error, in the output."""

from __future__ import annotations

from typing import Final

EXIT_USAGE: Final = 2


class BulkError(Exception):
    """Base of all errors of this package. The message says what to do; the command ends with the exit code."""

    exit_code = 1


class InputError(BulkError):
    """The input cannot be read as a whole: no file, no column that is needed, a damaged Parquet file."""


class OutputError(BulkError):
    """The output folder holds another run, or something else, or cannot be written."""

    exit_code = EXIT_USAGE


class MissingPackageError(BulkError):
    """A package that an option or an address needs is not installed."""

    exit_code = EXIT_USAGE


class ClusterError(BulkError):
    """There is no Ray cluster at an address."""

    exit_code = EXIT_USAGE


class ServerLostError(BulkError):
    """The server did not answer, or failed, for longer than the run is patient."""


class ModelChangedError(BulkError):
    """The server got another model while the run was on its way."""


class IncompleteError(BulkError):
    """The parts in the output are not the whole input, or overlap."""


class RowError(Exception):
    """One row, or one document of a row, cannot be scored; it becomes an error in the output.

    Attributes:
        kind: What is wrong, in a word.
        message: What is wrong, for people.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message

"""The exceptions of the client: one tree, the same for every transport."""

from __future__ import annotations


class LycheeError(Exception):
    """Base of everything this package raises on purpose.

    Attributes:
        retryable: True where the same call may succeed a little later.
        model_name: The model that was asked, or None where no single model is to blame.
        request_id: The id under which the server's log knows the request; where no single request failed, the call's
            own, or None if it has none.
    """

    retryable = False

    def __init__(self, message: str, *, model_name: str | None = None, request_id: str | None = None) -> None:
        super().__init__(message)
        self.model_name = model_name
        self.request_id = request_id


class LycheeWarning(UserWarning):
    """Something works, but probably not as it was meant."""


class ConfigurationError(LycheeError, ValueError):
    """A URL or an option has a value that cannot work; nothing was sent."""


class InvalidInputError(LycheeError, ValueError):
    """The query or a document cannot be ranked.

    Attributes:
        index: Position of the document in the caller's list, or None where it is the query.
    """

    def __init__(self, message: str, *, index: int | None = None) -> None:
        super().__init__(message)
        self.index = index


class ConnectionFailedError(LycheeError):
    """The server cannot be reached, or the connection broke before the answer came."""

    retryable = True


class DeadlineExceededError(LycheeError, TimeoutError):
    """The call took longer than its timeout.

    Attributes:
        timeout_s: Seconds that the call was allowed to take, or None where a server set the limit.
    """

    def __init__(
        self,
        message: str,
        *,
        timeout_s: float | None = None,
        model_name: str | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message, model_name=model_name, request_id=request_id)
        self.timeout_s = timeout_s


class ServerError(LycheeError):
    """The server answered with an error.

    Attributes:
        status: The protocol's own status, for example "INVALID_ARGUMENT", or None.
    """

    def __init__(
        self,
        message: str,
        *,
        status: str | None = None,
        model_name: str | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message, model_name=model_name, request_id=request_id)
        self.status = status


class ModelNotReadyError(ServerError):
    """The model is unknown to the server, still loading or unloaded; see wait_until_ready()."""


class ServerOverloadedError(ServerError):
    """The server's queue is full."""

    retryable = True


class RequestRejectedError(ServerError):
    """The server refused the tensors of the request."""


class InferenceError(ServerError):
    """The model or its backend failed while computing."""


class InvalidOutputError(ServerError):
    """The model gave no number for a document or the query: NaN, an infinite value, or a score outside of [0, 1].

    Attributes:
        index: Position of the document in the caller's list, or None where it is the query, or where none of the call's
            documents got a score.
    """

    index: int | None = None

    def __str__(self) -> str:
        message = super().__str__()
        return message if self.index is None else f"document {self.index}: {message}"


class ContractError(LycheeError):
    """The manifest or a response is not what this client version understands."""

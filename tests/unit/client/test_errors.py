"""The error tree."""

import pickle

import lychee_client
import pytest
from lychee_client import (
    ConfigurationError,
    ConnectionFailedError,
    ContractError,
    DeadlineExceededError,
    InferenceError,
    InvalidInputError,
    LycheeError,
    ModelNotReadyError,
    RequestRejectedError,
    ServerError,
    ServerOverloadedError,
)


@pytest.mark.parametrize(
    ("error", "bases", "retryable"),
    [
        (ConfigurationError, (LycheeError, ValueError), False),
        (InvalidInputError, (LycheeError, ValueError), False),
        (ConnectionFailedError, (LycheeError,), True),
        (DeadlineExceededError, (LycheeError, TimeoutError), False),
        (ServerError, (LycheeError,), False),
        (ModelNotReadyError, (ServerError,), False),
        (ServerOverloadedError, (ServerError,), True),
        (RequestRejectedError, (ServerError,), False),
        (InferenceError, (ServerError,), False),
        (ContractError, (LycheeError,), False),
    ],
)
def test_tree(error: type[LycheeError], bases: tuple[type, ...], retryable: bool) -> None:
    assert all(issubclass(error, base) for base in bases)
    assert error("message").retryable is retryable


def test_attributes_survive_pickling() -> None:
    error = pickle.loads(pickle.dumps(ServerError("message", status="INTERNAL", model_name="m", request_id="r")))
    assert (str(error), error.status, error.model_name, error.request_id) == ("message", "INTERNAL", "m", "r")


def test_all_is_sorted_and_exists() -> None:
    assert lychee_client.__all__ == sorted(lychee_client.__all__, key=lambda name: (not name.isupper(), name))
    assert all(hasattr(lychee_client, name) for name in lychee_client.__all__)

"""Rerank texts and images with a lychee-rerank server."""

from lychee_client._client import LycheeClient
from lychee_client._config import UNSET, Unset
from lychee_client._errors import (
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
from lychee_client._image import Image
from lychee_client._manifest import Manifest
from lychee_client._types import DocumentError, ImageText, RerankResponse, RerankResult, Text, Timings
from lychee_client.golden import GoldenPairResult, GoldenReport
from lychee_client.thresholds import POLICIES, Decision, Policy, decide

__all__ = [
    "POLICIES",
    "UNSET",
    "ConfigurationError",
    "ConnectionFailedError",
    "ContractError",
    "DeadlineExceededError",
    "Decision",
    "DocumentError",
    "GoldenPairResult",
    "GoldenReport",
    "Image",
    "ImageText",
    "InferenceError",
    "InvalidInputError",
    "LycheeClient",
    "LycheeError",
    "Manifest",
    "ModelNotReadyError",
    "Policy",
    "RequestRejectedError",
    "RerankResponse",
    "RerankResult",
    "ServerError",
    "ServerOverloadedError",
    "Text",
    "Timings",
    "Unset",
    "decide",
]

"""Rerank texts and images with a lychee-rerank server."""

from typing import TYPE_CHECKING, Any

from lychee_client._client import LycheeClient
from lychee_client._config import UNSET, Unset
from lychee_client._embedding_cache import EmbeddingCache
from lychee_client._errors import (
    ConfigurationError,
    ConnectionFailedError,
    ContractError,
    DeadlineExceededError,
    InferenceError,
    InvalidInputError,
    InvalidOutputError,
    LycheeError,
    LycheeWarning,
    ModelNotReadyError,
    RequestRejectedError,
    ServerError,
    ServerOverloadedError,
)
from lychee_client._options import RerankOptions, ScoreOptions
from lychee_client.calibration import Calibration
from lychee_client.chunking import Chunking
from lychee_client.experiments.events import FeedbackEvent
from lychee_client.golden import GoldenPairResult, GoldenReport
from lychee_client.manifest.manifest import Manifest, ModelIdentity
from lychee_client.memory_cache import CacheStatistics, MemoryEmbeddingCache
from lychee_client.preprocessing.image import Image
from lychee_client.served_models import ServedModel
from lychee_client.spans import RelevantSpan, RelevantSpans
from lychee_client.thresholds import POLICIES, Decision, Policy, decide
from lychee_client.transports.connection import TlsConfig
from lychee_client.transports.replica import ReplicaStatus
from lychee_client.types import (
    CacheUse,
    Chunk,
    DocumentError,
    ExperimentArm,
    Images,
    ImageText,
    ManyResult,
    ModelStatus,
    ModelTimings,
    Priority,
    QueryReading,
    RerankResponse,
    RerankResult,
    ServerStatus,
    Text,
    Timings,
)

if TYPE_CHECKING:
    from lychee_client._async_client import AsyncLycheeClient
    from lychee_client.cross_encoder import CrossEncoder

    __version__: str

__all__ = [
    "POLICIES",
    "UNSET",
    "AsyncLycheeClient",
    "CacheStatistics",
    "CacheUse",
    "Calibration",
    "Chunk",
    "Chunking",
    "ConfigurationError",
    "ConnectionFailedError",
    "ContractError",
    "CrossEncoder",
    "DeadlineExceededError",
    "Decision",
    "DocumentError",
    "EmbeddingCache",
    "ExperimentArm",
    "FeedbackEvent",
    "GoldenPairResult",
    "GoldenReport",
    "Image",
    "ImageText",
    "Images",
    "InferenceError",
    "InvalidInputError",
    "InvalidOutputError",
    "LycheeClient",
    "LycheeError",
    "LycheeWarning",
    "Manifest",
    "ManyResult",
    "MemoryEmbeddingCache",
    "ModelIdentity",
    "ModelNotReadyError",
    "ModelStatus",
    "ModelTimings",
    "Policy",
    "Priority",
    "QueryReading",
    "RelevantSpan",
    "RelevantSpans",
    "ReplicaStatus",
    "RequestRejectedError",
    "RerankOptions",
    "RerankResponse",
    "RerankResult",
    "ScoreOptions",
    "ServedModel",
    "ServerError",
    "ServerOverloadedError",
    "ServerStatus",
    "Text",
    "Timings",
    "TlsConfig",
    "Unset",
    "__version__",
    "decide",
]


_LAZY = {
    "AsyncLycheeClient": "lychee_client._async_client",
    "CrossEncoder": "lychee_client.cross_encoder",
}
"""Imported when they are first asked for: asyncio is a tenth of what an import takes, and few need the other."""


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        globals()[name] = version("lychee-rerank-client")
    elif name in _LAZY:
        from importlib import import_module

        globals()[name] = getattr(import_module(_LAZY[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return globals()[name]

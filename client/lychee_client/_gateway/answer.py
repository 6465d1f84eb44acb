"""From a gateway's JSON to what a call returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, Final

from lychee_client._errors import ContractError
from lychee_client._gateway.body import Body
from lychee_client._gateway.refusals import read_document_errors
from lychee_client.manifest.manifest import ModelIdentity
from lychee_client.served_models import ServedModel
from lychee_client.spans import RelevantSpan
from lychee_client.types import (
    CacheUse,
    Chunk,
    DocumentError,
    ExperimentArm,
    Input,
    ModelTimings,
    QueryReading,
    RerankResponse,
    RerankResult,
    Timings,
)

ERROR: Final = "error"  # the decision of an entry that stands for a document that could not be ranked
# Everything else in a result is taken as JSON has it.
_SHAPES: Final[Mapping[str, Callable[[Any], Any]]] = {
    "relevance_score": float,
    "logit": float,
    "image_size": tuple,
    "image_resized_to": tuple,
    "chunk": lambda told: Chunk(told["start"], told["end"]),
    "relevant_spans": lambda told: tuple(RelevantSpan(**span) for span in told),
}
_NAMES: Final = tuple(
    sorted({field.name for field in fields(RerankResult)} - {"index", "document"})  # these are the caller's
)


def read_models(content: Any, url: str) -> tuple[ServedModel, ...]:
    """Return the models of `GET /v1/models`, at least one: each once, whatever the number of its names.

    Raises:
        ContractError: It is not what a gateway answers.
    """
    try:
        found: dict[str | None, ServedModel] = {}
        for entry in content["data"]:
            own_name = entry.get("name")  # none where there is only one model
            if own_name in found:
                found[own_name] = replace(found[own_name], names=(*found[own_name].names, entry["id"]))
            else:
                found[own_name] = _read_model(entry, is_first=not found)
        if not found:
            raise LookupError("no model")
        return tuple(found.values())
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise ContractError(
            f"{url} answered GET /v1/models with something else than a gateway's model ({type(error).__name__}); "
            "expected a gateway of lychee-rerank (http://HOST:7860), or Triton itself (HOST:8001, or http://HOST:8000, "
            "its HTTP port): other servers' APIs are not spoken here"
        ) from error


def _read_model(entry: Mapping[str, Any], *, is_first: bool) -> ServedModel:
    executions = {name: each["precision"] for name, each in entry["execution"].items()}
    told = {name: precision for name, precision in executions.items() if precision is not None}
    artifacts = dict(entry.get("artifacts") or {})
    most_ms = entry.get("max_timeout_ms")
    model_id = entry.get("root") or entry["id"]  # the first entry is under the model's own name where none shares it
    return ServedModel(
        ModelIdentity(model_id, entry["revision"], entry["precision"], artifacts, told),
        (entry["id"],),
        bool(entry["reads_instruction"]),
        entry["default_instruction"],
        None if most_ms is None else most_ms / 1e3,
        entry.get("version"),
        bool(entry.get("default", is_first)),
        bool(entry.get("ready", True)),
    )


def read_response(content: Any, url: str, body: Body, documents: Sequence[Input] | None) -> RerankResponse:
    """Return the response of `POST /v1/rerank`, model and instruction left out.

    Args:
        content: What the gateway answered.
        url: The gateway's URL, for the message.
        body: What it was sent.
        documents: The caller's documents, to be put into the results. None leaves them out.

    Raises:
        ContractError: It is not what a gateway answers.
    """
    try:
        ranked = [entry for entry in content["results"] if entry["decision"] != ERROR]
        results = [_read_result(entry, body.indexes[entry["index"]], documents) for entry in ranked]
        cache, query, experiment = (content.get(name) for name in ("embedding_cache", "query", "experiment"))
        return RerankResponse(
            tuple(results),
            merge_errors(body, content["errors"]),
            _read_timings(content["timings"]),
            warnings=tuple(map(str, content["warnings"])),
            embedding_cache=None if cache is None else CacheUse(cache["hits"], cache["misses"]),
            query=None if query is None else QueryReading(query["modality"], query["truncated"], query.get("tokens")),
            tokens_read=content["usage"]["total_tokens"],
            ranking_id=content.get("ranking_id"),
            experiment=None if experiment is None else ExperimentArm(experiment["name"], experiment["arm"]),
            model_version=content.get("model_version"),
        )
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise ContractError(
            f"{url} answered POST /v1/rerank with something else than a ranking ({type(error).__name__}); client and "
            "gateway do not fit together: bring both to the same version"
        ) from error


def merge_errors(body: Body, entries: Sequence[Mapping[str, Any]]) -> tuple[DocumentError, ...]:
    """Return the documents that could not be sent, and those that the gateway could not rank, in the caller's order.

    Raises:
        LookupError, TypeError, ValueError: The entries are not what a gateway answers.
    """
    errors = [*body.errors, *read_document_errors(entries, body.indexes)]
    return tuple(sorted(errors, key=lambda failed: failed.index))


def _read_result(entry: Mapping[str, Any], index: int, documents: Sequence[Input] | None) -> RerankResult:
    told = {name: entry[name] for name in _NAMES if entry.get(name) is not None}
    values = {name: _SHAPES[name](value) if name in _SHAPES else value for name, value in told.items()}
    return RerankResult(index=index, document=None if documents is None else documents[index], **values)


def _read_timings(told: Mapping[str, Any]) -> Timings:
    server = told.get("server")
    models = None if server is None else {name: ModelTimings(**counted) for name, counted in server.items()}
    names = {field.name for field in fields(Timings)} & told.keys()
    return Timings(**{**{name: told[name] for name in names}, "server": models})

"""What a request holds that has no meaning here: it is left alone and told, or refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import replace
from typing import Any, Final
from urllib.parse import quote as percent_encode

from lychee_client import InvalidInputError
from pydantic import BaseModel

from lychee_server.gateway.call_notes import current_notes
from lychee_server.gateway.errors import RequestValueError
from lychee_server.gateway.excerpts import MAX_CHARACTERS, MAX_NAMES, list_names, quote
from lychee_server.gateway.metrics import Metrics
from lychee_server.gateway.service_answer import ServiceAnswer

# Fields that common clients send, and why nothing follows from them.
IGNORED: Final[Mapping[str, str]] = {
    "raw_scores": "every result has its logit",
    "return_embeddings": "no embedding is returned",
    "return_len": "every result has its tokens",
    "user": "callers are not told apart",
}


class UnknownNames:
    """The unknown fields and keys of one call, each once, and at most a few of them.

    Args:
        strict: Whether they are errors.
    """

    def __init__(self, *, strict: bool = False) -> None:
        self._strict = strict
        self._fields: dict[str, None] = {}
        self._keys: dict[str, None] = {}
        self._warnings: list[str] = []
        self._model = False

    def check_fields(self, body: BaseModel) -> None:
        """Note the fields of a request that are not known.

        Raises:
            RequestValueError: There is one, and they are errors.
        """
        for name in _extras(body):
            if name in IGNORED:
                self.note_ignored(name)
            elif self._strict:
                message = f"the field {quote(name)} is not known; see /docs for those that are"
                raise RequestValueError(message, name[:MAX_CHARACTERS], status=422, kind="invalid_shape")
            else:
                _add(self._fields, name)

    def check_keys(self, value: Mapping[str, Any], known: Set[str]) -> None:
        """Note the keys of a query, a document or a part of one that are not known; null counts as absent.

        Raises:
            InvalidInputError: There is one, and they are errors.
        """
        unknown = [key for key, each in value.items() if key not in known and each is not None]
        if unknown and self._strict:
            expected = ", ".join(sorted(known))
            raise InvalidInputError(f"the keys {list_names(unknown)} are not known; expected {expected} alone")
        for key in unknown:
            _add(self._keys, key)

    def note_ignored(self, name: str) -> None:
        """Note that a known field has no effect on this call."""
        self._warnings.append(f"{name} is ignored: {IGNORED[name]}")

    def note_model(self, asked: str, served: str) -> None:
        """Note that another model was asked for than the one that answers."""
        self._model = True
        self._warnings.append(f"the model {quote(asked)} is not served here; {served} answered")

    def tell(self, answer: ServiceAnswer, metrics: Metrics) -> ServiceAnswer:
        """Return an answer with the warnings, and tell the notes of the request and the metrics."""
        response = answer.response
        return replace(answer, response=replace(response, warnings=(*response.warnings, *self.collect(metrics))))

    def collect(self, metrics: Metrics) -> list[str]:
        """Return the warnings, and tell the notes of the request and the metrics."""
        warnings = list(self._warnings)
        if self._fields:
            warnings.append(f"fields that are not known are ignored: {list_names(self._fields)}; see /docs")
        if self._keys:
            warnings.append(f"keys of query or documents that are not known are ignored: {list_names(self._keys)}")
        current_notes().ignored = _encode([*self._fields, *self._keys])
        metrics.ignore(field=bool(self._fields), key=bool(self._keys), model=self._model)
        return warnings


def _extras(body: BaseModel, within: str = "") -> Iterator[str]:
    """Yield the paths of all fields that are not known, those of fields that are objects included."""
    for name in body.model_extra or ():
        yield within + name
    for name in type(body).model_fields:
        value = getattr(body, name)
        if isinstance(value, BaseModel):
            yield from _extras(value, f"{within}{name}.")


def _add(names: dict[str, None], name: str) -> None:
    if len(names) <= MAX_NAMES:  # one more than are told, so that it shows that there are more
        names[name[: MAX_CHARACTERS + 1]] = None


def _encode(names: list[str]) -> str:
    """Return names as a header can hold them."""
    return ", ".join(percent_encode(name[:MAX_CHARACTERS], safe="", errors="replace") for name in names[:MAX_NAMES])

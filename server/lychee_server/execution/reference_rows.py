"""Reference rows: natural inputs of every ensemble with the reference's scores, and how to score them in process."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Tensors = dict[str, Array]

SCORE = "relevance_score"
QUERY_EMBEDDING = "query_embedding"


class Session(Protocol):
    """What ONNX Runtime's session is asked for."""

    def run(self, output_names: Sequence[str] | None, input_feed: Mapping[str, Array]) -> list[Array]:
        """Compute outputs."""


@dataclass(frozen=True)
class Step:
    """One model of an ensemble.

    Attributes:
        model: The name of the model.
        inputs: The ensemble's tensors by the model's inputs.
        outputs: The ensemble's tensors by the model's outputs.
    """

    model: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


QUERY_STEP = Step(
    "text_encoder",
    {"input_ids": "query_input_ids", "attention_mask": "query_attention_mask"},
    {"text_embedding": QUERY_EMBEDDING},
)
"""Makes the query's embedding, which a client sends to an ensemble, from the query's tokens."""

LATE_QUERY_STEP = Step("text_encoder", QUERY_STEP.inputs, {"token_embeddings": "query_embeddings"})
"""The same with late interaction: a query's vectors are many, and as long as its tokens."""


@dataclass(frozen=True)
class EnsembleRows:
    """The rows of one ensemble.

    Attributes:
        steps: The models in order; the query's encoder first, where the ensemble takes an embedding.
        inputs: Arrays by tensor, the rows on the first axis.
        padded: The same for those that a client may pad, padded further; empty if there is none.
        scores: float64, (rows,), the reference's scores.
    """

    steps: tuple[Step, ...]
    inputs: Tensors
    padded: Tensors
    scores: npt.NDArray[np.float64]


def read_rows(path: Path, ensembles: Mapping[str, Sequence[Step]]) -> list[EnsembleRows]:
    """Read the file that `lychee export` wrote.

    Args:
        path: `reference_rows.npz`.
        ensembles: The steps of every ensemble of the repository, by its name.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is damaged.
        KeyError: It belongs to other ensembles.
    """
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    found = []
    for ensemble in dict.fromkeys(name.partition(".")[0] for name in arrays):
        prefix = f"{ensemble}."
        own = {
            name.removeprefix(prefix): arrays[name][arrays[f"{name}.rows"]]
            for name in arrays
            if name.startswith(prefix) and not name.endswith(".rows")
        }
        scores = own.pop(SCORE).astype(np.float64).ravel()
        padded = {name.removesuffix(".padded"): own.pop(name) for name in list(own) if name.endswith(".padded")}
        steps = tuple(ensembles[ensemble])
        if "query_input_ids" in own:
            taken = {tensor for step in steps for tensor in step.inputs.values()}
            late = LATE_QUERY_STEP.outputs["token_embeddings"] in taken
            steps = (LATE_QUERY_STEP if late else QUERY_STEP, *steps)
        found.append(EnsembleRows(steps, own, padded, scores))
    if not found:
        raise ValueError("it holds no rows")
    return found


@dataclass
class Scorer:
    """Scores rows in process. Equal rows of a model are computed once, and what was computed is kept.

    Attributes:
        open_session: Opens a model in the way that counts as the reference on this machine.
        feeds: By model, the first distinct rows that were computed with it.
    """

    open_session: Callable[[str], Session]
    feeds: dict[str, Tensors] = field(default_factory=dict)
    _sessions: dict[str, Session] = field(default_factory=dict)
    _known: dict[bytes, list[Array]] = field(default_factory=dict)

    def score(
        self, rows: EnsembleRows, instead: Mapping[str, Session] | None = None, *, padded: bool = False, only: int = 0
    ) -> npt.NDArray[np.float64]:
        """Return the rows' scores, float64, (rows,).

        Args:
            rows: The rows of one ensemble.
            instead: The sessions that take the place of the models' own, by model.
            padded: Whether to take the padded inputs where there are some.
            only: How many of the first rows to score, each alone in its batch; 0: all rows together.
        """
        if only:
            singles = [{name: value[[row]] for name, value in rows.inputs.items()} for row in range(only)]
            return np.concatenate([self._run(rows.steps, inputs, instead or {}) for inputs in singles])
        return self._run(rows.steps, {**rows.inputs, **(rows.padded if padded else {})}, instead or {})

    def _run(self, steps: Sequence[Step], inputs: Tensors, instead: Mapping[str, Session]) -> npt.NDArray[np.float64]:
        tensors = dict(inputs)
        for step in steps:
            feed = {name: tensors[tensor] for name, tensor in step.inputs.items()}
            outputs = self._compute(step, feed, instead.get(step.model))
            tensors |= dict(zip(step.outputs.values(), outputs, strict=True))
        return tensors[SCORE].astype(np.float64).ravel()

    def _compute(self, step: Step, feed: Tensors, session: Session | None) -> list[Array]:
        distinct, indices = distinct_rows(feed)
        names = list(step.outputs)
        if session is not None:
            outputs = session.run(names, distinct)
        else:
            key = _digest(step.model, names, distinct)
            if key not in self._known:
                self.feeds.setdefault(step.model, distinct)
                self._known[key] = self.own_session(step.model).run(names, distinct)
            outputs = self._known[key]
        return [output[indices] for output in outputs]

    def own_session(self, model: str) -> Session:
        """Return the session of a model that `open_session` opened."""
        if model not in self._sessions:
            self._sessions[model] = self.open_session(model)
        return self._sessions[model]


def distinct_rows(feed: Tensors) -> tuple[Tensors, list[int]]:
    """Return the rows of a batch without repetitions, in order, and the index among them of every row."""
    seen: dict[bytes, int] = {}
    count = len(next(iter(feed.values())))
    indices = [seen.setdefault(b"".join(value[row].tobytes() for value in feed.values()), row) for row in range(count)]
    firsts = sorted(set(indices))
    return {name: value[firsts] for name, value in feed.items()}, [firsts.index(row) for row in indices]


def _digest(model: str, names: Sequence[str], feed: Tensors) -> bytes:
    digest = hashlib.sha256(repr((model, names)).encode())
    for name, value in feed.items():
        digest.update(repr((name, value.shape)).encode() + np.ascontiguousarray(value).tobytes())
    return digest.digest()

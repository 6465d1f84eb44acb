"""What is to be measured, and what was: the two messages of the measuring process, as JSON."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from lychee_server.execution.reference_rows import Step


@dataclass(frozen=True)
class ModelTask:
    """A model to measure.

    Attributes:
        path: The path of its ONNX file.
        threads: How many threads it gets, as its configuration says; 0: all CPUs.
        choose: Whether to measure it; otherwise it only takes part in the scores of others.
    """

    path: str
    threads: int
    choose: bool


@dataclass(frozen=True)
class Task:
    """What to measure.

    Attributes:
        rows_path: The reference rows.
        models: The models, by name.
        ensembles: The steps of each ensemble, by the ensemble's name.
        error_budget: How far a score may be off, from 0; with 0 only executions in float32 are tried.
        cache_dir: Where OpenVINO keeps compiled networks.
        device: What may execute them, beside the plain CPU provider: "auto", "cpu" or "cuda".
    """

    rows_path: str
    models: Mapping[str, ModelTask]
    ensembles: Mapping[str, Sequence[Step]]
    error_budget: float
    cache_dir: str | None
    device: str = "auto"

    @classmethod
    def from_json(cls, text: str) -> "Task":
        """Read what `to_json` wrote."""
        data = json.loads(text)
        data["models"] = {name: ModelTask(**model) for name, model in data["models"].items()}
        data["ensembles"] = {name: [Step(**step) for step in steps] for name, steps in data["ensembles"].items()}
        return cls(**data)

    def to_json(self) -> str:
        """Write the task."""
        return json.dumps(asdict(self))


@dataclass(frozen=True)
class Measurement:
    """One execution of one model.

    Attributes:
        error: Largest distance of a score from what it is on the plain CPU provider, with this execution of this model
            alone; for the plain CPU provider itself, from the reference's.
        move: The largest distance that a score moved when its row was alone or padded.
        speed: How many times as fast as the plain CPU provider, for one row and a small batch; None: not measured.
        problem: Why it cannot be used; None if it can.
    """

    error: float = 0.0
    move: float = 0.0
    speed: float | None = None
    problem: str | None = None


@dataclass
class Measurements:
    """What was measured.

    Attributes:
        models: What was measured, by model and execution. The plain CPU provider is always among them.
        seconds: How long it took.
        complete: Whether there was time for everything.
    """

    models: dict[str, dict[str, Measurement]] = field(default_factory=dict)
    seconds: float = 0.0
    complete: bool = True

    @classmethod
    def from_json(cls, text: str) -> "Measurements":
        """Read what `to_json` wrote."""
        data = json.loads(text)
        models = {
            model: {execution: Measurement(**found) for execution, found in by_execution.items()}
            for model, by_execution in data["models"].items()
        }
        return cls(models, data["seconds"], data["complete"])

    def to_json(self) -> str:
        """Write the measurements."""
        return json.dumps(asdict(self))

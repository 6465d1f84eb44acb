"""What a load test measured: the JSON file that `loadtest/` writes and `lychee report` reads."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from lychee_client.files import write_atomically
from lychee_server.errors import LycheeServerError

__all__ = [
    "FORMAT",
    "CallStatistics",
    "GeneratorHealth",
    "LoadTestResults",
    "Period",
    "ResultsError",
    "Verdict",
    "read_results",
    "write_results",
]

FORMAT: Final = 1


class ResultsError(LycheeServerError):
    """A file is not what a load test writes."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class CallStatistics:
    """Calls of one name in some span of time.

    Attributes:
        name: "gRPC interactive/text" (transport, lane, modality), or a sum: "gRPC interactive", "interactive", "all".
        calls: How many calls were answered with scores. Rates and latencies are theirs.
        failures: How many calls ended in an error or with a wrong answer.
        overloads: How many calls were refused because the server was full, which is no failure.
        documents: How many documents were scored in `calls`.
        calls_per_s: How many calls were answered per second.
        documents_per_s: How many documents were scored per second.
        p50_ms: Half of the calls took at most so long; at most 1 % too high. All latencies are None without calls.
        p90_ms: See `p50_ms`.
        p99_ms: See `p50_ms`.
        max_ms: How long the longest call took.
    """

    name: str
    calls: int
    failures: int
    overloads: int
    documents: int
    calls_per_s: float
    documents_per_s: float
    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None
    max_ms: float | None

    @property
    def attempts(self) -> int:
        """All calls, however they ended."""
        return self.calls + self.failures + self.overloads


@dataclass(frozen=True, slots=True)
class Period:
    """A part of the run: a short window, or a step of the shape.

    Attributes:
        start_s: When the part began, in seconds since the start of the test.
        duration_s: How long the part lasted.
        users: How many callers there were in the middle of it.
        arrival_rate_per_s: How many calls were to begin per second; None for a closed model.
        lanes: The statistics of each lane that had calls.
    """

    start_s: float
    duration_s: float
    users: int
    arrival_rate_per_s: float | None
    lanes: tuple[CallStatistics, ...]


@dataclass(frozen=True, slots=True)
class GeneratorHealth:
    """Whether the load generator itself kept up.

    Attributes:
        processes: How many processes generated load.
        hub_lag_p50_ms: By how much gevent's event loop woke a greenlet too late; likewise p99 and max.
        hub_lag_p99_ms: See `hub_lag_p50_ms`.
        hub_lag_max_ms: See `hub_lag_p50_ms`.
        cpu_share_mean: How much of one core the event loop's thread used on average, in the busiest process; 1.0 is all
            that it can.
        cpu_share_max: The same in the worst window of any process.
        arrivals: How many calls of an open model there were whose time has come.
        arrivals_waited: How many of them found all users busy: the latency has their waiting time, but more users would
            have sent them earlier.
        arrivals_unserved: How many of them no user had taken when the run was over.
        lateness_p50_ms: By how much the generator began arrivals too late; None for a closed model. Likewise p99, max.
        lateness_p99_ms: See `lateness_p50_ms`.
        lateness_max_ms: See `lateness_p50_ms`.
    """

    processes: int
    hub_lag_p50_ms: float | None
    hub_lag_p99_ms: float | None
    hub_lag_max_ms: float | None
    cpu_share_mean: float | None
    cpu_share_max: float | None
    arrivals: int = 0
    arrivals_waited: int = 0
    arrivals_unserved: int = 0
    lateness_p50_ms: float | None = None
    lateness_p99_ms: float | None = None
    lateness_max_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """One service-level limit and what came of it.

    Attributes:
        subject: The name of the calls, or "generator".
        measure: What was limited, such as "p99_ms".
        limit: The value in the limits file.
        measured: What was measured; None where nothing was, and then the limit is broken.
        at_least: Whether the limit is the least that is wanted, not the most that is allowed.
        met: Whether it held.
    """

    subject: str
    measure: str
    limit: float
    measured: float | None
    at_least: bool
    met: bool


@dataclass(frozen=True, slots=True)
class LoadTestResults:
    """One run.

    Attributes:
        machine: Where the load generator ran; see `lychee_loadtest.machine`.
        started_at: When the run began, as ISO 8601 in UTC.
        duration_s: How long it lasted, from the start to the moment when the users were told to stop.
        settings: Options of the run by name.
        names: One entry for each transport, lane and modality.
        sums: The same over modalities, over transports, and over everything.
        windows: The time course.
        steps: One entry for each step of the shape, without the windows in which the load changed; one for a run
            without a shape.
        generator: Whether the load generator kept up.
        verdicts: One for each limit.
        messages: How often each failure came, most frequent first.
    """

    machine: dict[str, str | int | bool]
    started_at: str
    duration_s: float
    settings: dict[str, str | int | float | bool | None]
    names: tuple[CallStatistics, ...]
    sums: tuple[CallStatistics, ...]
    windows: tuple[Period, ...]
    steps: tuple[Period, ...]
    generator: GeneratorHealth
    verdicts: tuple[Verdict, ...] = ()
    messages: dict[str, int] = field(default_factory=dict)

    @property
    def met(self) -> bool:
        """Whether every limit held."""
        return all(verdict.met for verdict in self.verdicts)


def write_results(results: LoadTestResults, path: Path) -> None:
    """Write the JSON file, atomically; its folder is made.

    Raises:
        ConfigurationError: It cannot be written; the message names it.
    """
    content = json.dumps({"format": FORMAT, **asdict(results)}, indent=1, ensure_ascii=False, allow_nan=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, f"{content}\n".encode())


def read_results(path: Path) -> LoadTestResults:
    """Read the JSON file.

    Raises:
        ResultsError: There is no such file, or it is not one of a load test; the message names file and field.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        content: Any = json.loads(path.read_bytes())
    except OSError as error:
        raise ResultsError(
            f"{path} cannot be read: {error.strerror}; expected the JSON file of a load test, for example from "
            "`make loadtest`"
        ) from error
    except ValueError as error:
        raise ResultsError(f"{path} is no JSON: {error}; expected the file that a load test wrote") from error
    version = content.get("format") if isinstance(content, dict) else None
    if version != FORMAT:
        raise ResultsError(
            f"{path} has format {version!r}; expected {FORMAT}, which the locustfile writes with --results"
        )
    try:
        return TypeAdapter(LoadTestResults).validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ResultsError(f"{path}: {place} is {first['input']!r}: {first['msg']}; run the load test again") from error

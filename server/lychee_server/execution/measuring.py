"""What each execution of each model costs on this machine, in time and in accuracy.

Runs as a process of its own (`python -m lychee_server.execution.measuring`): it reads a Task from its standard input,
and writes Measurements to its standard output, both JSON. What a provider breaks, it breaks there; its memory is given
back, too.
"""

import math
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from lychee_server.execution.measurement import INVARIANCE_ATOL, Measurement, Measurements, Task
from lychee_server.execution.onnx_sessions import (
    EXECUTIONS,
    PLAIN_CPU,
    available_cpus,
    available_executions,
    one_line,
    open_session,
)
from lychee_server.execution.reference_rows import EnsembleRows, Scorer, Session, Tensors, read_rows

TIME_LIMIT_S = 20.0
"""After so long no other execution is opened. lychee-mini takes 3 s, larger models in proportion to their weights."""
ROUNDS = 3
BATCH_ROWS = 4
ALONE_ROWS = 2
ORDER = ("openvino-bf16", "cuda-fp32", "openvino-fp32")
"""The most promising first, in case that the time runs out."""


def measure(task: Task, executions: Sequence[str], started: float) -> Measurements:
    """Measure every model that is to be chosen for.

    Args:
        task: What to measure.
        executions: What the machine has.
        started: When the work began, as `time.perf_counter` has it.
    """
    rows = read_rows(Path(task.rows_path), task.ensembles)
    scorer = Scorer(lambda model: _open(task, model, PLAIN_CPU))
    baseline = [scorer.score(each) for each in rows]
    exact = _largest_error(rows, baseline)
    found = Measurements()
    for model in (name for name, each in task.models.items() if each.choose):
        measured = {PLAIN_CPU: Measurement(error=exact, speed=1.0)}
        found.models[model] = measured
        concerned = [each for each in rows if any(step.model == model for step in each.steps)]
        for execution in _candidates(executions, task.error_budget):
            if _is_settled(measured, exact, task.error_budget):
                break
            if time.perf_counter() - started > TIME_LIMIT_S:
                measured[execution] = Measurement(problem="was not tried, for want of time")
                found.complete = False
                continue
            try:
                session = _open(task, model, execution)
                measured[execution] = _measure_one(scorer, model, session, concerned, exact + task.error_budget)
            except Exception as error:  # whatever the provider throws, the plain one can still serve
                measured[execution] = Measurement(problem=f"is not usable: {one_line(error)}")
    found.seconds = time.perf_counter() - started
    return found


def _candidates(executions: Sequence[str], error_budget: float) -> list[str]:
    return [name for name in ORDER if name in executions and (error_budget > 0 or EXECUTIONS[name].precision == "fp32")]


def _is_settled(measured: Mapping[str, Measurement], exact: float, error_budget: float) -> bool:
    """Tell whether bfloat16 keeps the scores and is fast: the same provider in float32 is not faster."""
    best = measured.get("openvino-bf16")
    if best is None or best.speed is None:
        return False
    return best.speed > 1 and best.error <= exact + error_budget and best.move <= INVARIANCE_ATOL


def _measure_one(
    scorer: Scorer, model: str, session: Session, rows: Sequence[EnsembleRows], accepted: float
) -> Measurement:
    instead = {model: session}
    scores = [scorer.score(each, instead) for each in rows]
    error = _largest_error(rows, scores)
    if not all(np.isfinite(each).all() for each in scores):
        return Measurement(problem="gives scores that are not finite")
    if error > max(accepted, INVARIANCE_ATOL):
        return Measurement(error)
    moves = [0.0]
    for each, together in zip(rows, scores, strict=True):
        count = min(ALONE_ROWS, len(together))
        moves.append(float(np.abs(scorer.score(each, instead, only=count) - together[:count]).max()))
        if each.padded:
            moves.append(float(np.abs(scorer.score(each, instead, padded=True) - together).max()))
    return Measurement(error, max(moves), _compare_speed(session, scorer.own_session(model), scorer.feeds[model]))


def _compare_speed(session: Session, plain: Session, feed: Tensors) -> float:
    """Return how many times as fast a session is as the plain one: for one row and for a batch, taken in turn."""
    ratios = []
    for count in (1, BATCH_ROWS):
        part = {name: value[:count] for name, value in feed.items()}
        times: dict[str, list[float]] = {"plain": [], "other": []}
        for _ in range(ROUNDS):
            for name, each in (("plain", plain), ("other", session)):
                begun = time.perf_counter()
                each.run(None, part)  # type: ignore[arg-type]
                times[name].append(time.perf_counter() - begun)
        ratios.append(min(times["plain"]) / min(times["other"]))
    return math.sqrt(statistics.fmean(ratios) * statistics.harmonic_mean(ratios))


def _largest_error(rows: Sequence[EnsembleRows], scores: Sequence[Any]) -> float:
    return max(float(np.abs(found - each.scores).max()) for each, found in zip(rows, scores, strict=True))


def _open(task: Task, model: str, execution: str) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = task.models[model].threads or available_cpus()
    return open_session(Path(task.models[model].path), execution, options, task.cache_dir)


def main() -> None:
    """Read the task, measure, write the outcome."""
    started = time.perf_counter()
    task = Task.from_json(sys.stdin.read())
    print(measure(task, available_executions(), started).to_json())


if __name__ == "__main__":
    main()

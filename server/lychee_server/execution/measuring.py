"""What each execution of each model costs on this machine, in time and in accuracy.

Runs as a process of its own (`python -m lychee_server.execution.measuring`): it reads a Task from its standard input,
and writes Measurements to its standard output, both JSON. What a provider breaks, it breaks there; its memory is given
back, too.
"""

import math
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from lychee_client.manifest import EXACT_TOLERANCE

from lychee_server.execution.measurement import Measurement, Measurements, Task
from lychee_server.execution.onnx_sessions import (
    CUDA_PROVIDER,
    EXECUTIONS,
    PLAIN_CPU,
    available_cpus,
    available_executions,
    one_line,
    open_session,
)
from lychee_server.execution.reference_rows import EnsembleRows, Scorer, Session, Tensors, read_rows

Scores = npt.NDArray[np.float64]

TIME_LIMIT_S = 20.0
"""After so long no other execution is opened. lychee-mini takes 3 s, larger models in proportion to their weights."""
ROUNDS = 2
RUNS = 2
SETTLE_S = 0.02
BATCH_ROWS = 4
ALONE_ROWS = 2
ORDER = ("cuda-tf32", "cuda-fp32", "openvino-bf16", "openvino-fp32")
"""The most promising first, in case that the time runs out."""


def measure(task: Task, executions: Sequence[str], started: float) -> Measurements:
    """Measure every model that is to be chosen for.

    Args:
        task: What to measure.
        executions: What the machine has.
        started: When the work began, as `time.perf_counter` has it.
    """
    rows = read_rows(Path(task.rows_path), task.ensembles)
    candidates = [
        name
        for name in ORDER
        if name in executions
        and (task.error_budget > 0 or EXECUTIONS[name].precision == "fp32")
        and task.device in ("auto", "cuda" if EXECUTIONS[name].provider == CUDA_PROVIDER else "cpu")
    ]
    found = Measurements()
    scorer = Scorer(lambda model: _open(task, model, PLAIN_CPU))
    plain = [scorer.score(each) for each in rows]
    for model in (name for name, each in task.models.items() if each.choose):
        concerned = [
            (each, scores)
            for each, scores in zip(rows, plain, strict=True)
            if any(step.model == model for step in each.steps)
        ]
        error = max((_distance(scores, each.scores) for each, scores in concerned), default=0.0)
        measured = found.models[model] = {PLAIN_CPU: Measurement(error=error, speed=1.0)}
        for execution in candidates if concerned else ():
            if _is_settled(measured, task.error_budget):
                break
            if time.perf_counter() - started > TIME_LIMIT_S:
                measured[execution] = Measurement(problem="was not tried, for want of time")
                found.complete = False
                continue
            try:
                session = _open(task, model, execution)
                measured[execution] = _measure_one(scorer, model, session, concerned, task.error_budget)
            except Exception as failure:  # whatever the provider throws, the plain one can still serve
                measured[execution] = Measurement(problem=f"is not usable: {one_line(failure)}")
    found.seconds = time.perf_counter() - started
    return found


def _is_settled(measured: Mapping[str, Measurement], error_budget: float) -> bool:
    """Tell whether bfloat16 keeps the scores and is fast: the same provider in float32 is not faster."""
    best = measured.get("openvino-bf16")
    if best is None or best.speed is None:
        return False
    return best.speed > 1 and best.error <= error_budget and best.move <= EXACT_TOLERANCE


def _measure_one(
    scorer: Scorer,
    model: str,
    session: Session,
    rows: Sequence[tuple[EnsembleRows, Scores]],
    error_budget: float,
) -> Measurement:
    """Measure a session of a model.

    Args:
        scorer: Computes the scores.
        model: The model.
        session: Takes the place of its own.
        rows: The rows in which the model has a part, with the scores that the plain CPU provider gives them.
        error_budget: What is further off is not worth timing.
    """
    instead = {model: session}
    scores = [scorer.score(each, instead) for each, _ in rows]
    if not all(np.isfinite(each).all() for each in scores):
        return Measurement(problem="gives scores that are not finite")
    error = max(_distance(found, plain) for found, (_, plain) in zip(scores, rows, strict=True))
    if error > max(error_budget, EXACT_TOLERANCE):
        return Measurement(error)
    move = _measure_move(scorer, rows[0][0], instead, scores[0])
    return Measurement(error, move, _compare_speed(session, scorer.own_session(model), scorer.feeds[model]))


def _measure_move(scorer: Scorer, rows: EnsembleRows, instead: Mapping[str, Session], together: Scores) -> float:
    """Return how far a score moves when its row stands alone or is padded, in the first ensemble with the model."""
    count = min(ALONE_ROWS, len(together))
    moved = [np.abs(scorer.score(rows, instead, only=count) - together[:count])]
    if rows.padded:
        moved.append(np.abs(scorer.score(rows, instead, padded=True) - together))
    return float(np.concatenate(moved).max())


def _compare_speed(session: Session, plain: Session, feed: Tensors) -> float:
    """Return how many times as fast a session is as the plain one: for one row and for a batch, in turn."""
    ratios = []
    for count in (1, BATCH_ROWS):
        part = {name: value[:count] for name, value in feed.items()}
        times: dict[str, list[float]] = {"plain": [], "other": []}
        for _ in range(ROUNDS):
            for name, each in (("plain", plain), ("other", session)):
                times[name].append(_time(each, part))
        ratios.append(min(times["plain"]) / min(times["other"]))
    return math.sqrt(math.prod(ratios))


def _time(session: Session, feed: Tensors) -> float:
    """Return the seconds of a run, the best of a few: the first ones share the cores with another session's threads.

    ONNX Runtime's threads spin for a while after a run, in case that another one follows.
    """
    time.sleep(SETTLE_S)
    times = []
    for _ in range(RUNS):
        begun = time.perf_counter()
        session.run(None, feed)
        times.append(time.perf_counter() - begun)
    return min(times)


def _distance(scores: Scores, others: Scores) -> float:
    return float(np.abs(scores - others).max())


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

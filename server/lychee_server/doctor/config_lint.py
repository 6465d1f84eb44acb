"""What is wrong with the configurations of a model repository and Triton does not say, or says without the line.

Triton names the model and the key of nearly every mistake when it loads the model. Only a file that does not follow its
schema is "failed to read text proto" to it, and it says nothing of what changes nothing or slows the model down.
"""

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from lychee_server.errors import RepositoryError
from lychee_server.repository import check_repository, read_config

Severity: TypeAlias = Literal["error", "warning"]
# Those that our backend reads, and those that the C++ backend reads.
# Source: https://github.com/triton-inference-server/onnxruntime_backend/blob/r26.03/src/onnxruntime.cc
PARAMETERS: Final = (
    "arena_extend_strategy",
    "cudnn_conv_algo_search",
    "device",
    "do_copy_in_default_stream",
    "enable_mem_arena",
    "enable_mem_pattern",
    "error_budget",
    "execution",
    "execution_mode",
    "execution_reason",
    "gpu_mem_limit",
    "gpus",
    "inter_op_thread_count",
    "intra_op_thread_count",
    "max_run_elements",
    "memory.enable_memory_arena_shrinkage",
    "run_input",
    "session.use_device_allocator_for_initializers",
)
MAXIMUM_PREFIX: Final = "maximum."
QUEUE_FIELDS: Final = frozenset({"priority_levels", "default_queue_policy", "priority_queue_policy"})


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a repository.

    Attributes:
        seen: The file, the place in it, and what is wrong there.
        advice: What to write instead.
        severity: "error": the model does not load; "warning": it loads, and does not do what the file suggests.
    """

    seen: str
    advice: str
    severity: Severity


def lint_repository(repository: Path) -> tuple[int, list[Problem]]:
    """Check every `config.pbtxt`, every variant in `configs/`, and whether the models' files are there.

    Returns:
        How many configurations there are, and their problems by file.
    """
    problems: list[Problem] = []
    paths = sorted([*repository.glob("*/config.pbtxt"), *repository.glob("*/configs/*.pbtxt")])
    for path in paths:
        variant = path.parent.parent != repository
        try:
            config = read_config(path.parents[variant], path.stem if variant else None)
        except RepositoryError as error:
            problems.append(Problem(str(error), "correct it, or run `lychee export` to write the file again", "error"))
            continue
        problems += [Problem(f"{path}: {seen}", advice, "warning") for seen, advice in _silent_problems(config)]
    if all(problem.severity == "warning" for problem in problems):
        try:
            check_repository(repository)
        except RepositoryError as error:
            problems.append(Problem(str(error), "run `lychee export`, or name another folder", "error"))
    return len(paths), problems


def _silent_problems(config: Any) -> Iterator[tuple[str, str]]:
    """Yield what Triton loads without a word: the key with what is wrong, and what to do."""
    for field, _ in config.dynamic_batching.ListFields():
        if field.name in QUEUE_FIELDS:
            yield (
                f"dynamic_batching.{field.name}: with it, Triton 2.51 leaves requests in the queue for 500 ms although "
                "the model is idle",
                "remove it, unless the queues matter more than the latency",
            )
    for name in sorted(config.parameters) if config.backend == "onnxruntime" else ():
        if name not in PARAMETERS and not name.startswith(MAXIMUM_PREFIX):
            near = difflib.get_close_matches(name, PARAMETERS, n=1)
            known = f"one of {', '.join(PARAMETERS)} or {MAXIMUM_PREFIX}<input or axis>"
            advice = f"did you mean {near[0]}?" if near else f"expected {known}"
            yield f"parameters[{name}]: no backend reads this parameter, so it changes nothing", advice
    if config.response_cache.enable:
        yield (
            "response_cache: Triton's response cache stores failed answers and gives them for ever",
            "remove it; client and gateway have a cache of their own",
        )

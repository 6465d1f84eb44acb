"""Where the time of a prefill goes: kernels by kind, and what a CUDA graph and compiled layers change."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from lychee_loadtest.speed.qwen_model import WAYS, Pairs, Way, count_flops, prepare

__all__ = ["classify", "explain"]

_KINDS = {  # the first that matches
    "attention": re.compile(r"^(?!triton_).*(flash|fmha|sdpa|attention)", re.IGNORECASE),
    "matrix products": re.compile(r"gemm|nvjet|cutlass|xmma|splitk|gemv", re.IGNORECASE),
    "softmax": re.compile(r"softmax", re.IGNORECASE),
    "copies": re.compile(r"memcpy|memset|copy_kernel|CatArray", re.IGNORECASE),
}
_SHOWN_KERNELS = 12
_COMPILED_WAYS: tuple[Way, ...] = ("exported", "fused")

Timer = Callable[[Callable[[], Any]], dict[str, Any]]


def classify(kernel: str) -> str:
    """Return the kind of a kernel by its name; what no pattern knows is element by element."""
    return next((kind for kind, pattern in _KINDS.items() if pattern.search(kernel)), "element by element")


def explain(model: Any, rows: int, timer: Timer, peak_flops: float) -> dict[str, Any]:
    """Print how a call of one short text and a call of a batch spend their time.

    Leaves the model's layers compiled.
    """
    calls = [Pairs(1, 64), Pairs(min(rows, 24), 256)]
    on_gpu = model.device.type == "cuda"
    record: dict[str, Any] = {"variants": [], "kernels": []}
    print("\nreasons\n\n| pairs | tokens | variant | ms | share of the matrix rate |\n|---|---|---|---|---|")

    def show(pairs: Pairs, variant: str, run: Callable[[], Any]) -> None:
        work = count_flops(pairs, model.config.text_config.to_dict())
        line: dict[str, Any] = {"rows": pairs.rows, "tokens": pairs.tokens, "variant": variant}
        try:
            line |= timer(run)
        except Exception as error:  # a variant that this machine lacks is no reason to lose the others
            line["error"] = str(error)[:400]
            print(f"| {pairs.rows} | {pairs.tokens} | {variant} | {line['error'].splitlines()[0]} |  |", flush=True)
        else:
            line["share"] = work.needed / line["seconds"] / peak_flops
            times = f"{1000 * line['seconds']:.2f} | {line['share']:.0%}"
            print(f"| {pairs.rows} | {pairs.tokens} | {variant} | {times} |", flush=True)
        record["variants"].append(line)

    for pairs in calls:
        for way in WAYS:
            run = prepare(model, way, pairs)
            show(pairs, way, run)
            if on_gpu and way != "transformers":
                show(pairs, f"{way}, CUDA graph", Replay(run))
                record["kernels"].append(profile_kernels(run, way, pairs))
    for layer in model.model.language_model.layers:
        layer.compile(dynamic=False)
    for pairs in calls:
        for way in _COMPILED_WAYS:
            run = prepare(model, way, pairs)
            show(pairs, f"{way}, compiled", run)
            if on_gpu:
                show(pairs, f"{way}, compiled, CUDA graph", Replay(run))
                record["kernels"].append(profile_kernels(run, f"{way}, compiled", pairs))
    print_kernels(record["kernels"])
    return record


class Replay:
    """A call captured as a CUDA graph, when it is first called: one launch instead of hundreds."""

    def __init__(self, run: Callable[[], Tensor]) -> None:
        self._run = run
        self._graph: Any = None
        self._result: Tensor | None = None

    def __call__(self) -> Tensor | None:
        if self._graph is None:
            stream = cast(Any, torch.cuda).Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(2):
                    self._run()
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self._result = self._run()
            self._graph = graph
        self._graph.replay()
        return self._result


def profile_kernels(run: Callable[[], Any], variant: str, pairs: Pairs) -> dict[str, Any]:
    """Add up the time of a call's kernels by kind, in milliseconds, and list those that took the longest."""
    run()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        run()
        torch.cuda.synchronize()
    kernels = [event for event in profiler.key_averages() if event.device_type.name == "CUDA"]
    kinds: dict[str, float] = {}
    for event in kernels:
        kind = classify(event.key)
        kinds[kind] = kinds.get(kind, 0.0) + event.self_device_time_total / 1000
    longest = sorted(kernels, key=lambda event: -event.self_device_time_total)[:_SHOWN_KERNELS]
    return {
        "variant": variant,
        "rows": pairs.rows,
        "tokens": pairs.tokens,
        "kinds_ms": kinds,
        "launches": sum(event.count for event in kernels),
        "longest": [[event.key[:120], event.count, event.self_device_time_total / 1000] for event in longest],
    }


def print_kernels(profiles: list[dict[str, Any]]) -> None:
    """Print milliseconds by kind of kernel."""
    if not profiles:
        return
    kinds = sorted({kind for line in profiles for kind in line["kinds_ms"]})
    print(f"\nkernels, ms\n\n| pairs | tokens | variant | launches | {' | '.join(kinds)} | all |")
    print("|---" * (5 + len(kinds)) + "|")
    for line in profiles:
        each = " | ".join(f"{line['kinds_ms'].get(kind, 0.0):.2f}" for kind in kinds)
        total = sum(line["kinds_ms"].values())
        start = f"| {line['rows']} | {line['tokens']} | {line['variant']} | {line['launches']} |"
        print(f"{start} {each} | {total:.2f} |", flush=True)

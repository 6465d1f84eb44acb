"""Which of torch's ways to bfloat16 is the faster one on this machine? Runs on its own.

    python torch_precisions.py CHECKPOINT

Prints items per second of forward passes, medians of rounds in which each way has its turn: 20 photos, 100 texts and 5
texts in a batch, 24 tokens each. The FastAPI service takes the way that was faster.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import CLIPModel

ROUNDS = 7
BATCHES = {"20 photos": ("photos", 20), "100 texts": ("texts", 100), "5 texts": ("texts", 5)}
TOKENS = 24


def run(model: Any, kind: str, rows: int, dtype: torch.dtype) -> None:
    """Run one forward pass on random inputs; speed does not depend on them."""
    if kind == "photos":
        model.get_image_features(torch.rand(rows, 3, 224, 224).to(dtype))
        return
    eos = model.config.text_config.eos_token_id
    ids = torch.randint(0, eos - 1, (rows, TOKENS))
    ids[:, -1] = eos
    model.get_text_features(ids, torch.ones_like(ids))


def main(checkpoint: str) -> None:
    """Measure and print."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    single, half = (
        CLIPModel.from_pretrained(checkpoint, attn_implementation="sdpa", dtype=dtype)
        for dtype in (torch.float32, torch.bfloat16)
    )
    ways: dict[str, tuple[Any, torch.dtype, Callable[[], Any]]] = {
        "float32": (single, torch.float32, contextlib.nullcontext),
        "bfloat16 weights": (half, torch.bfloat16, contextlib.nullcontext),
        "autocast": (single, torch.float32, lambda: torch.autocast("cpu", dtype=torch.bfloat16)),
    }
    rates: dict[tuple[str, str], list[float]] = {(batch, way): [] for batch in BATCHES for way in ways}
    for number in range(ROUNDS + 1):
        for batch, (kind, rows) in BATCHES.items():
            for way, (model, dtype, context) in ways.items():
                started = time.perf_counter()
                with torch.inference_mode(), context():
                    run(model, kind, rows, dtype)
                if number:  # the first round warms up
                    rates[batch, way].append(rows / (time.perf_counter() - started))
    for (batch, way), values in rates.items():
        print(f"{batch:10} {way:17} {statistics.median(values):6.1f}/s, {min(values):.1f} to {max(values):.1f}")


if __name__ == "__main__":
    main(sys.argv[1])

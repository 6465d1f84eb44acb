"""Time, memory and share of the matrix rate of Qwen2.5-VL-3B's shapes with random weights, in torch, mostly for GPUs.

Prints one table per part and writes everything to a file:

- rates: what a square matrix product and a copy reach, in the same process;
- texts, images: calls of 1 to 32 pairs, each way (see `qwen_model.py`);
- attention: what plain and fused attention take for 32 long texts and 8 pages;
- halves: whether keys with a large bias become NaN in float16 and in bfloat16;
- reasons: where the time of a prefill goes, and what a CUDA graph and compiled layers change.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from lychee_loadtest.folders import RESULTS, write_record
from lychee_loadtest.machine import describe_machine
from lychee_loadtest.speed.image_sizes import fit_patches, lay_out
from lychee_loadtest.speed.qwen_halves import check_halves
from lychee_loadtest.speed.qwen_model import MODEL_CONFIG, WAYS, Pairs, Way, build, count_flops, prepare
from lychee_loadtest.speed.qwen_reasons import explain

FORMAT = 1
PARTS = ("texts", "attention", "images", "halves", "reasons")
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
TEXT_TOKENS = (64, 256, 512)
ROWS = (1, 2, 4, 8, 16, 24, 32)
IMAGE_SIZES = (256, 384, 512)
PAGE, PAGE_PIXELS = (2339, 1654), 1280 * 28 * 28  # an A4 page at 200 dpi, and lychee-rerank-mm's most pixels
PAGE_ROWS = (1, 2, 4, 8)
PROMPT_TOKENS = 64  # beside an image
LONG_TEXTS, PAGES = Pairs(32, 2048), Pairs(8, PROMPT_TOKENS, fit_patches(*PAGE, PAGE_PIXELS))
WARM_UPS, LEAST_RUNS, MOST_RUNS, SECONDS = 2, 3, 10, 1.0

Record = dict[str, Any]


def synchronize(device: str) -> None:
    """Wait until the device has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


def time_calls(run: Callable[[], Any], device: str) -> Record:
    """Time calls one by one: the median of as many as fit into a second, 3 to 10, after two that warm up."""
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    for _ in range(WARM_UPS):
        run()
    synchronize(device)
    seconds: list[float] = []
    while len(seconds) < LEAST_RUNS or (len(seconds) < MOST_RUNS and sum(seconds) < SECONDS):
        started = time.perf_counter()
        run()
        synchronize(device)
        seconds.append(time.perf_counter() - started)
    peak = torch.cuda.max_memory_allocated() / 1e9 if device == "cuda" else None
    return {"seconds": statistics.median(seconds), "fastest": min(seconds), "runs": len(seconds), "peak_gb": peak}


def measure_rates(dtype: torch.dtype, device: str, side: int) -> Record:
    """Measure operations per second of a product of two square matrices, and bytes per second of a copy."""
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    product = time_calls(lambda: a @ b, device)["seconds"]
    source = torch.randn(8, side, side, device=device, dtype=dtype)
    target = torch.empty_like(source)
    copy = time_calls(lambda: target.copy_(source), device)["seconds"]
    return {"side": side, "flops": 2 * side**3 / product, "bytes": 2 * source.nbytes / copy}


def measure(model: Any, way: Way, pairs: Pairs, peak_flops: float) -> Record:
    """Measure one line."""
    work = count_flops(pairs, model.config.text_config.to_dict(), model.config.vision_config.to_dict())
    line: Record = {"way": way, "rows": pairs.rows, "tokens": pairs.tokens, "patches": pairs.patches}
    line |= {"needed_flops": work.needed, "computed_flops": work.computed}
    try:
        line |= time_calls(prepare(model, way, pairs), model.device.type)
    except torch.OutOfMemoryError as error:
        return line | {"error": str(error).split(". ")[0]}
    return line | {"share": work.needed / line["seconds"] / peak_flops}


def list_texts(rows: Sequence[int]) -> Iterator[tuple[str, Pairs]]:
    """Name the calls with texts."""
    for tokens in TEXT_TOKENS:
        for count in rows:
            yield "-", Pairs(count, tokens)


def list_images(rows: Sequence[int]) -> Iterator[tuple[str, Pairs]]:
    """Name the calls with an image in each pair."""
    grids = {str(size): lay_out(size) for size in IMAGE_SIZES}
    for name, grid in grids.items():
        for count in rows:
            yield name, Pairs(count, PROMPT_TOKENS, grid)
    for count in (count for count in PAGE_ROWS if count <= max(rows)):
        yield "page", Pairs(count, PROMPT_TOKENS, PAGES.grid)


def print_lines(model: Any, part: str, calls: Iterator[tuple[str, Pairs]], peak_flops: float) -> list[Record]:
    """Measure every call in every way, and print the table."""
    print(f"\n{part}\n\n| image | tokens | pairs | way | ms | ms per pair | share of the matrix rate | peak memory |")
    print("|---|---|---|---|---|---|---|---|")
    lines = []
    for image, pairs in calls:
        for way in WAYS:
            line: Record = {"image": image} | measure(model, way, pairs, peak_flops)
            lines.append(line)
            start = f"| {image} | {pairs.tokens} | {pairs.rows} | {way} |"
            if "error" in line:
                print(f"{start} {line['error']} |  |  |  |", flush=True)
                continue
            peak = "" if line["peak_gb"] is None else f"{line['peak_gb']:.2f} GB"
            each = 1000 * line["seconds"] / pairs.rows
            print(f"{start} {1000 * line['seconds']:.1f} | {each:.2f} | {line['share']:.0%} | {peak} |", flush=True)
    return lines


def shorten(config: Mapping[str, Any], layers: int | None) -> dict[str, Any]:
    """Return the configuration with fewer layers, for a try."""
    if layers is None:
        return dict(config)
    full = [index for index in config["vision_config"]["fullatt_block_indexes"] if index < layers]
    text = config["text_config"] | {"num_hidden_layers": layers}
    return dict(config) | {
        "text_config": text,
        "vision_config": config["vision_config"] | {"depth": layers, "fullatt_block_indexes": full},
    }


def run(parts: Sequence[str], config: Mapping[str, Any], dtype: torch.dtype, device: str, options: Record) -> Record:
    """Measure the parts of one model.

    Args:
        parts: Names of PARTS; the rates are always measured.
        config: The model's configuration.
        dtype: The dtype of its weights.
        device: "cpu" or "cuda".
        options: side, of the matrices that measure the rate; rows, of the calls; long, whether long texts and pages are
            measured; save, what is called with the record after each part.
    """
    record: Record = {"rates": measure_rates(dtype, device, options["side"])}
    peak_flops = record["rates"]["flops"]
    print(f"matrix product {peak_flops / 1e12:.1f} TFLOP/s, copy {record['rates']['bytes'] / 1e12:.2f} TB/s")
    model = build(config, dtype, device)
    record["weights_gb"] = sum(weight.nbytes for weight in model.parameters()) / 1e9
    count = sum(weight.numel() for weight in model.parameters())
    print(f"{count / 1e9:.2f} billion weights, {record['weights_gb']:.2f} GB", flush=True)
    long = [("-", LONG_TEXTS), ("page", PAGES)] if options["long"] else []
    measured: dict[str, Callable[[], Any]] = {
        "texts": lambda: print_lines(model, "texts", list_texts(options["rows"]), peak_flops),
        "attention": lambda: print_lines(model, "attention", iter(long), peak_flops),
        "images": lambda: print_lines(model, "images", list_images(options["rows"]), peak_flops),
        "halves": lambda: check_halves(config, device),
        "reasons": lambda: explain(model, max(options["rows"]), lambda call: time_calls(call, device), peak_flops),
    }
    for part, measure_part in measured.items():
        if part in parts:
            record[part] = measure_part()
            options["save"](record)
    return record


def main() -> None:
    """Print the tables and write the file."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--dtype", choices=DTYPES, default="bf16")
    parser.add_argument("--layers", type=int, help="of each tower, for a try")
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS, metavar="PAIRS")
    parser.add_argument("--side", type=int, default=8192, help="of the matrices that measure the rate")
    parser.add_argument("--output", type=Path, default=RESULTS / "qwen_shapes.json")
    arguments = parser.parse_args()
    machine = describe_machine()
    if arguments.device == "cuda":
        machine["gpu"] = torch.cuda.get_device_name()
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    print(f"{machine.get('gpu', machine['cpu'])}, {machine['date']}, {versions}, {arguments.dtype}")
    header = {"format": FORMAT, "machine": machine, "versions": versions, "dtype": arguments.dtype}
    header["layers"] = arguments.layers
    options: Record = {"side": arguments.side, "rows": arguments.rows, "long": arguments.device == "cuda"}
    options["save"] = lambda record: write_record(arguments.output, header | record)
    run(arguments.parts, shorten(MODEL_CONFIG, arguments.layers), DTYPES[arguments.dtype], arguments.device, options)


if __name__ == "__main__":
    main()

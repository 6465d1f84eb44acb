"""What ``--max-img-size`` costs: patches, tokens, time and memory of one square image, as a table.

Runs the vision tower of lychee-rerank-mm's architecture (Qwen2.5-VL-3B) with random float32 weights in torch, on a CPU
or a GPU. Time and memory depend on shapes alone, so no checkpoint is needed. Two ways: "exported" is the module that
``lychee export`` turns into ONNX, where every patch's scores with every other are computed and masked to windows;
"transformers" is the class of transformers, window by window. Each line is measured in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from lychee_client.manifest import PatchSpec
from lychee_client.preprocessing.pixels import smart_resize
from lychee_export.families.qwen_vl.vision import VisionEncoder
from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLVisionConfig
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VisionTransformerPretrainedModel

from lychee_loadtest.machine import describe_machine

# Source: https://huggingface.co/Qwen/Qwen2.5-VL-3B-Instruct/blob/main/config.json
VISION_CONFIG: dict[str, Any] = {
    "depth": 32,
    "hidden_size": 1280,
    "num_heads": 16,
    "intermediate_size": 3420,
    "out_hidden_size": 2048,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "window_size": 112,
    "fullatt_block_indexes": [7, 15, 23, 31],
}
MIN_PIXELS = 4 * 28 * 28
SIZES = (256, 384, 512)
WAYS = ("exported", "transformers")
RUNS = 3

Run = Callable[[], torch.Tensor]


def lay_out(size: int) -> tuple[int, int]:
    """Return rows and columns of patches of a large square image under ``--max-img-size``."""
    return fit_patches(4 * size, 4 * size, size**2)


def fit_patches(height: int, width: int, max_pixels: int) -> tuple[int, int]:
    """Return rows and columns of patches of an image, given in pixels, that may keep so many of them."""
    patch: int = VISION_CONFIG["patch_size"]
    merge: int = VISION_CONFIG["spatial_merge_size"]
    enough = (math.isqrt(max_pixels) // patch + merge) ** 2 * merge**2
    spec = PatchSpec(patch, merge, MIN_PIXELS, max_pixels, "bicubic", (enough,), 1, 1)
    height, width = smart_resize(height, width, spec)
    return height // patch, width // patch


def prepare(way: str, size: int, device: str) -> Run:
    """Build a tower and return what embeds one image with it."""
    torch.manual_seed(0)
    config = Qwen2_5_VLVisionConfig(**VISION_CONFIG)
    config._attn_implementation = "eager"
    with torch.device(device):
        tower: Any = Qwen2_5_VisionTransformerPretrainedModel(config)
    tower = tower.eval()
    height, width = lay_out(size)
    grid = torch.tensor([[1, height, width]], device=device)
    pixels = np.random.default_rng(0).integers(0, 256, (height * width, 588), dtype=np.uint8)
    values = torch.from_numpy(pixels).to(device)
    if way == "transformers":
        both_frames = values.float().reshape(-1, 3, 1, 196).expand(-1, 3, 2, 196).reshape(len(values), -1)
        return lambda: tower(both_frames / 255, grid_thw=grid).pooler_output
    text_config = SimpleNamespace(hidden_size=VISION_CONFIG["out_hidden_size"])
    whole_config = SimpleNamespace(vision_config=config, text_config=text_config)
    model = SimpleNamespace(model=SimpleNamespace(visual=tower), config=whole_config)
    encoder = VisionEncoder(model, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)).eval()
    return lambda: encoder(values[None], grid[None])[0]


def measure(way: str, size: int, device: str, runs: int) -> dict[str, float]:
    """Measure one line of the table in this process."""
    run = prepare(way, size, device)
    with torch.no_grad():
        run()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds, cpu_seconds = [], []
        for _ in range(runs):
            started, cpu_started = time.perf_counter(), time.process_time()
            tokens = len(run())
            if device == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - started)
            cpu_seconds.append(time.process_time() - cpu_started)
    on_gpu = device == "cuda"
    peak = torch.cuda.max_memory_allocated() if on_gpu else 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    height, width = lay_out(size)
    return {
        "side": VISION_CONFIG["patch_size"] * height,
        "patches": height * width,
        "tokens": tokens,
        "seconds": statistics.median(seconds),
        "cpu_seconds": statistics.median(cpu_seconds),
        "peak_gb": peak / 1e9,
    }


def measure_apart(way: str, size: int, device: str, runs: int) -> dict[str, Any]:
    """Measure one line in a process of its own, so that its peak of memory is its own."""
    command = [
        sys.executable,
        "-m",
        "lychee_loadtest.speed.image_sizes",
        "--line",
        way,
        str(size),
        "--device",
        device,
        "--runs",
        str(runs),
    ]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    line: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return line


def main() -> None:
    """Print the table in Markdown."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, metavar="PIXELS")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--runs", type=int, default=RUNS, help="of each line, after one to warm up")
    parser.add_argument("--line", nargs=2, metavar=("WAY", "SIZE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.line:
        way, size = arguments.line
        print(json.dumps(measure(way, int(size), arguments.device, arguments.runs)))
        return
    machine = describe_machine()
    device = f"{machine['cpu']}, {machine['cores']} cores"
    if arguments.device == "cuda":
        device = torch.cuda.get_device_name()
    runs = f"median of {arguments.runs} after a warm-up"
    print(f"{device}, {machine['date']}, torch {torch.__version__}, float32; {runs}\n")
    print("| --max-img-size | image | patches | tokens | way | seconds | CPU seconds | peak memory |")
    print("|---|---|---|---|---|---|---|---|")
    for size in arguments.sizes:
        for way in WAYS:
            line = measure_apart(way, size, arguments.device, arguments.runs)
            image = f"{line['side']} x {line['side']}"
            print(
                f"| {size} | {image} | {line['patches']} | {line['tokens']} | {way} | {line['seconds']:.3g} | "
                f"{line['cpu_seconds']:.3g} | {line['peak_gb']:.2f} GB |",
                flush=True,
            )


if __name__ == "__main__":
    main()

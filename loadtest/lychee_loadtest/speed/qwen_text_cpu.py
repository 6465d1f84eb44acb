"""CPU seconds of Qwen2.5-VL-3B's text encoder in float32, bfloat16 and with 4-bit weights, as a table.

Exports the text encoder with random weights and few layers as `lychee export` does, executes the files as a server
does, and reckons all 36 layers from what one more layer costs: layers are equal, and what comes before and after them
costs nothing beside them. Time is that of the process on all its cores, so that other work does not count.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from lychee_export.contract.signature import Axis, ModelSignature, Tensors, TensorSpec
from lychee_export.families.family import Piece
from lychee_export.families.qwen_vl.text import TextEncoder
from lychee_export.onnx.export import export_onnx
from lychee_export.onnx.quantization import quantize_weights
from lychee_server.execution.onnx_sessions import available_cpus, available_executions, open_session

from lychee_loadtest.folders import RESULTS, write_record
from lychee_loadtest.machine import describe_machine
from lychee_loadtest.speed.qwen_model import MODEL_CONFIG, Pairs, build, make_inputs

LAYERS = (2, 4, 8)
ALL_LAYERS: int = MODEL_CONFIG["text_config"]["num_hidden_layers"]
TOKENS = (64, 256)
FILES = {"float32": ("fp32", "cpu-fp32"), "bfloat16": ("fp32", "openvino-bf16"), "w4": ("w4", "cpu-fp32")}
"""File and execution by what the table calls them."""
RUNS = 3
VOCABULARY = 4096  # looking tokens up takes no time, however many there are


def make_piece(layers: int) -> Piece:
    """Build a text encoder in float32 as the exporter takes it."""
    text = MODEL_CONFIG["text_config"] | {"num_hidden_layers": layers, "vocab_size": VOCABULARY}
    vision = MODEL_CONFIG["vision_config"] | {"depth": 1, "fullatt_block_indexes": [0]}
    ids = {f"{name}_token_id": VOCABULARY - 1 - index for index, name in enumerate(("image", "vision_start"))}
    ids |= {"vision_end_token_id": VOCABULARY - 3, "video_token_id": VOCABULARY - 4}
    model = build(MODEL_CONFIG | ids | {"text_config": text, "vision_config": vision}, torch.float32, "cpu")
    width = text["hidden_size"]
    tokens, image_tokens = Axis("sequence_length", (64, 2048)), Axis("num_image_tokens", (1, 2048))
    inputs = (
        TensorSpec("input_ids", "int64", (tokens,)),
        TensorSpec("attention_mask", "int64", (tokens,)),
        TensorSpec("image_embeds", "float32", (image_tokens, width)),
        TensorSpec("image_grid_thw", "int64", (1, 3)),
    )
    signature = ModelSignature("text_encoder", inputs, (TensorSpec("hidden", "float32", (width,)),), 32, encoder=True)
    return Piece(signature, TextEncoder(model).eval(), lambda _, rows: sample(Pairs(rows, 64, (8, 8))))


def sample(pairs: Pairs) -> Tensors:
    """Make rows of texts, and of zeros for their images."""
    inputs = {name: value.numpy() for name, value in make_inputs(pairs, "cpu", VOCABULARY - 1).items()}
    del inputs["pixel_values"]
    embeds = np.zeros((pairs.rows, max(1, pairs.patches // 4), MODEL_CONFIG["text_config"]["hidden_size"]), np.float32)
    return inputs | {"image_embeds": embeds}


def measure(path: Path, execution: str, tokens: Sequence[int]) -> dict[int, float]:
    """Return the CPU seconds of one text by its number of tokens: the median of three runs after one to warm up."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = available_cpus()
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # waiting is no work
    session = open_session(path, execution, options)
    seconds = {}
    for count in tokens:
        inputs: Any = sample(Pairs(1, count))
        session.run(None, inputs)
        runs = []
        for _ in range(RUNS):
            started = time.process_time()
            session.run(None, inputs)
            runs.append(time.process_time() - started)
        seconds[count] = statistics.median(runs)
    return seconds


def extrapolate(seconds: dict[int, float], layers: int = ALL_LAYERS) -> float:
    """Reckon the seconds of more layers from those of the fewest and the most that were measured."""
    few, many = min(seconds), max(seconds)
    return seconds[many] + (layers - many) * (seconds[many] - seconds[few]) / (many - few)


def main() -> None:
    """Print the table and write the file."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, nargs="+", default=LAYERS)
    parser.add_argument("--tokens", type=int, nargs="+", default=TOKENS)
    parser.add_argument("--output", type=Path, default=RESULTS / "qwen_text_cpu.json")
    arguments = parser.parse_args()
    here = available_executions()
    files = {name: (file, execution) for name, (file, execution) in FILES.items() if execution in here}
    measured: dict[str, dict[int, dict[int, float]]] = {name: {} for name in files}
    for layers in arguments.layers:
        with tempfile.TemporaryDirectory() as folder:
            paths = {name: Path(folder, name, "model.onnx") for name in ("fp32", "w4")}
            for path in paths.values():
                path.parent.mkdir()
            export_onnx(make_piece(layers), paths["fp32"])
            quantize_weights(paths["fp32"], paths["w4"], "w4")
            gc.collect()
            for name, (file, execution) in files.items():
                measured[name][layers] = measure(paths[file], execution, arguments.tokens)
                print(f"{layers} layers, {name}: {measured[name][layers]}", flush=True)
    machine = describe_machine()
    print(f"\n{machine['cpu']}, {machine['date']}, CPU seconds of one text; onnxruntime {onnxruntime.__version__}\n")
    header = " | ".join(f"{layers} layers" for layers in arguments.layers)
    print(f"| precision | tokens | {header} | {ALL_LAYERS} layers, reckoned |")
    print("|---" * (3 + len(arguments.layers)) + "|")
    for name, by_layers in measured.items():
        for tokens in arguments.tokens:
            seconds = {layers: by_layers[layers][tokens] for layers in arguments.layers}
            each = " | ".join(f"{value:.2f}" for value in seconds.values())
            print(f"| {name} | {tokens} | {each} | {extrapolate(seconds):.1f} |")
    write_record(arguments.output, {"format": 1, "machine": machine, "seconds": measured})


if __name__ == "__main__":
    main()

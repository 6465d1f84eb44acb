"""Predictions and running deployments as tables for people and JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from lychee_client.repository import TRITON_BYTES
from lychee_server.errors import SettingsError
from rich.table import Table

from lychee_loadtest.machine import describe_machine
from lychee_loadtest.memory.layers import LAYERS, Layers, ModelMeasurement
from lychee_loadtest.memory.live import Expected, LiveMemory, Warned
from lychee_loadtest.memory.plan import ModelNeed, Need

__all__ = ["FORMAT", "live_json", "live_table", "need_table", "needs_json", "read_expected", "reserved_warnings"]

FORMAT: Final = 1
MB: Final = 1e6
RESERVED_SHARE: Final = 1.5  # reserved, of what is used
RESERVED_BYTES: Final = 50_000_000
_HEADINGS: Final = ("weights", "attention", "temporary", "framework")


def need_table(need: Need) -> Table:
    """Return one row per model, then the sums; all in MB."""
    table = _table("model", "instances", "batch", *_HEADINGS, "MB in all", "+-", "loading")
    for entry in need.models:
        rows = str(entry.prediction.rows or "-") + ("*" if entry.is_extrapolated else "")
        table.add_row(
            entry.measurement.model,
            str(entry.measurement.instances),
            rows,
            *_layer_cells(entry.layers),
            _mb(entry.layers.total),
            _mb(entry.error_bytes),
            _mb(entry.load_peak_bytes),
        )
    if not need.on_gpu:
        server = Layers(framework=need.server_bytes)
        row = ("Triton, transport", "1", "-", *_layer_cells(server), _mb(server.total), "", _mb(TRITON_BYTES))
        table.add_row(*row)
    table.add_section()
    shared = need.shared_bytes
    once = Layers(framework=-shared) + need.layers
    loading = need.loading_bytes
    table.add_row(
        "every process in full", "", "", *_layer_cells(need.layers), _mb(need.layers.total), "", _mb(loading + shared)
    )
    table.add_row(
        "shared libraries once", "", "", *_layer_cells(once), _mb(once.total), _mb(need.error_bytes), _mb(loading)
    )
    return table


def live_table(live: LiveMemory) -> Table:
    """Return one row per process, then the sums; all in MB."""
    table = _table("process", "pid", "framework", "weights", "tensors", "resident", "shared once", "private", "peak")
    if live.devices:
        table.add_column("GPU", justify="right")
    for process in live.processes:
        memory = process.memory
        sizes = (
            process.framework_bytes,
            process.weight_bytes,
            process.tensor_bytes,
            *(memory.rss_bytes, memory.pss_bytes, memory.private_bytes, memory.peak_bytes),
            *([process.device_bytes] if live.devices else []),
        )
        table.add_row(process.name, str(process.pid), *map(_mb, sizes))
    table.add_section()
    table.add_row("in all", "", "", "", "", _mb(live.rss_bytes), _mb(live.pss_bytes))
    return table


def reserved_warnings(measurements: Sequence[ModelMeasurement]) -> Iterator[str]:
    """Yield where a measured process reserved far more than it used, and what to do."""
    for model in measurements:
        used, resident = model.heap_used_bytes, model.heap_resident_bytes
        if used is not None and _far_above(resident, used):
            yield (
                f"{model.model} keeps {resident / MB:.0f} MB and malloc handed out {used / MB:.0f} MB of it: the heap "
                "is fragmented. MALLOC_ARENA_MAX=2 in the server's environment, or a smaller max_run_elements, helps"
            )
        for size in model.sizes:
            grown = size.runs[-1].peak_bytes - model.loaded_bytes
            if _far_above(size.arena_bytes, grown):
                yield (
                    f"{model.model}: ONNX Runtime's arena has reserved {size.arena_bytes / MB:.0f} MB for tensors and "
                    f"{grown / MB:.0f} MB are used: it doubles what it takes. Other sizes of requests may fill it; "
                    "enable_mem_arena 0 in config.pbtxt gives it back after each run, for some speed"
                )
                break


def needs_json(
    needs: Sequence[Need], measurements: Sequence[ModelMeasurement], repository: Path, verdict: Mapping[str, Any]
) -> dict[str, Any]:
    """Return measurements and predictions as JSON types.

    Args:
        needs: What the deployment needs, one entry for each batch.
        measurements: The measurements that they rest on.
        repository: The repository that was measured.
        verdict: The question and its answer.
    """
    return {
        "format": FORMAT,
        "machine": describe_machine(),
        "repository": str(repository),
        **verdict,
        "deployment": [
            {
                "batch": need.batch,
                "images": need.images,
                "tokens": need.tokens,
                "on_gpu": need.on_gpu,
                "serving_bytes": round(need.serving_bytes),
                "error_bytes": round(need.error_bytes),
                "resident_bytes": round(need.layers.total),
                "loading_bytes": round(need.loading_bytes),
                **_layers_json(need.layers),
                "models": [_need_json(entry) for entry in need.models],
            }
            for need in needs
        ],
        "measured": [asdict(model) for model in measurements],
    }


def live_json(live: LiveMemory, warned: Sequence[Warned]) -> dict[str, Any]:
    """Return a running deployment as JSON types."""
    return {
        "format": FORMAT,
        "machine": describe_machine(),
        "rss_bytes": live.rss_bytes,
        "pss_bytes": live.pss_bytes,
        **asdict(live),
        "warnings": [asdict(entry) for entry in warned],
    }


def read_expected(path: Path) -> Expected:
    """Read what the models need at their largest batch from a file that `--json` wrote.

    Raises:
        SettingsError: The file cannot be read, or is of another kind.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["format"] != FORMAT:
            raise ValueError(f"format {data['format']}")
        entries = [model for need in data["deployment"] for model in need["models"]]
        expected: dict[str, float] = {}
        for entry in entries:
            size = (entry["total_bytes"] + entry["error_bytes"]) / entry["instances"]
            expected[entry["model"]] = max(size, expected.get(entry["model"], 0.0))
        return Expected(expected, any(need["on_gpu"] for need in data["deployment"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SettingsError(
            f"{path} is no prediction ({error}); expected the file of `lychee memory --repository DIR --json {path}`."
        ) from error


def _need_json(entry: ModelNeed) -> dict[str, Any]:
    return {
        "model": entry.measurement.model,
        "instances": entry.measurement.instances,
        "rows": entry.prediction.rows,
        "rows_per_run": entry.prediction.rows_per_run,
        "extrapolated": entry.prediction.extrapolated,
        **_layers_json(entry.layers),
        "total_bytes": round(entry.layers.total),
        "error_bytes": round(entry.error_bytes),
        "load_peak_bytes": entry.load_peak_bytes,
    }


def _layers_json(layers: Layers) -> dict[str, int]:
    return {f"{name}_bytes": round(getattr(layers, name)) for name in LAYERS}


def _far_above(reserved: float, used: float) -> bool:
    return reserved > RESERVED_SHARE * used and reserved - used > RESERVED_BYTES


def _layer_cells(layers: Layers) -> tuple[str, ...]:
    return tuple(_mb(getattr(layers, name)) for name in _HEADINGS)


def _mb(size: float) -> str:
    return f"{size / MB:,.0f}"


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column(first, no_wrap=True)
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    return table

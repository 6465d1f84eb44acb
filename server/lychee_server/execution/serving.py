"""The repository that Triton is given: links to the exported one, with configurations that say what executes it."""

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
from google.protobuf import text_format
from lychee_client.manifest import EXACT_TOLERANCE
from lychee_client.repository import ASSETS_MODEL, newest_version, read_manifest, version_folders
from tritonclient.grpc import model_config_pb2

from lychee_server.errors import DeviceError, RepositoryError
from lychee_server.execution.budget import format_budget
from lychee_server.execution.child import run_module
from lychee_server.execution.choice import Choice, choose
from lychee_server.execution.device import Device, require_gpu, unused_gpu, wants_gpu
from lychee_server.execution.measurement import Measurements, ModelTask, Task
from lychee_server.execution.onnx_sessions import AS_EXPORTED, CUDA_PROVIDER, EXECUTIONS, PLAIN_CPU, UNCHOSEN
from lychee_server.execution.reference_rows import Step
from lychee_server.execution.remembered import describe_circumstances, recall, remember
from lychee_server.repository import model_path, read_artifacts, read_config

ROWS_FILENAME = "reference_rows.npz"
MEASURING_TIMEOUT_S = 60.0
FOLDER = "served"
MOST_UNUSED = 8  # repositories that no server has now, but perhaps will again
_DIGITS = 16

Configs = dict[str, model_config_pb2.ModelConfig]


@dataclass(frozen=True)
class Served:
    """What Triton serves.

    Attributes:
        path: The repository for Triton.
        choices: What was chosen, by model, for the models for which something was chosen.
        note: What is worth a line about how they were chosen; empty if there is nothing to choose.
    """

    path: Path
    choices: Mapping[str, Choice]
    note: str


def serve(
    repository: Path, config_name: str | None, error_budget: float, cache_dir: Path, device: Device = "auto"
) -> Served:
    """Choose what executes the models that leave it open, and those that were exported for a GPU.

    But for a GPU that was asked for, nothing that goes wrong here keeps a server from starting: a model for which
    nothing can be measured runs on the plain CPU provider, and its choice says why.

    Args:
        repository: The exported repository; only read.
        config_name: The variant of the models' configurations, or None.
        error_budget: How far a score may be from the reference's, from 0; 0 admits float32 alone.
        cache_dir: Keeps choices, links and compiled networks.
        device: Where they may run.

    Raises:
        DeviceError: They are to run on a GPU, and none can be used.
    """
    repository = repository.absolute()  # links and what is remembered must not depend on the working directory
    folders = {path.parent.name: path.parent for path in sorted(repository.glob("*/config.pbtxt"))}
    configs: Configs = {}
    for name, folder in folders.items():
        with contextlib.suppress(RepositoryError):  # Triton says what is wrong with it
            configs[name] = read_config(folder, config_name)
    open_models = [name for name, config in configs.items() if _execution(config) == UNCHOSEN]
    gpu_models = [name for name, config in configs.items() if wants_gpu(config)]
    if device == "cuda" and not open_models + gpu_models:
        raise DeviceError(
            f"--device is cuda, and {repository} fixes what executes each of its models: on CPUs. Expected models that "
            "leave it open or are for a GPU: `lychee export --target cuda`, and no --config-name."
        )
    if device == "cuda" or (device == "auto" and gpu_models):
        what = f"{repository} was exported for GPUs ({', '.join(gpu_models)})"
        require_gpu(what if gpu_models else "--device is cuda")
    choices: dict[str, Choice] = {}
    notes: list[str] = []
    if open_models:
        choices, note = _choose(folders, configs, error_budget, cache_dir, device)
        notes = [note, unused_gpu() if device == "auto" else ""]
    if device == "cuda":
        choices = {name: _require_cuda(choice) for name, choice in choices.items()}
    choices |= _place_gpu_models(repository, gpu_models, device)
    if not choices:
        return Served(repository, {}, "")
    path = _link(folders, configs, choices, error_budget, cache_dir)
    with contextlib.suppress(OSError):  # such as what another server's start has just removed
        _remove_old(path)
    return Served(path, choices, "; ".join(filter(None, notes)))


def _require_cuda(choice: Choice) -> Choice:
    """Return the choice if it is CUDA, else CUDA in float32 instead of it; either way as what was asked for."""
    if EXECUTIONS[choice.execution].provider == CUDA_PROVIDER:
        return replace(choice, required=True)
    return Choice("cuda-fp32", f"--device cuda; {choice.reason}", required=True)


def _place_gpu_models(repository: Path, models: list[str], device: Device) -> dict[str, Choice]:
    """Choose for the models that were exported for a GPU: it, in the precision of the export, or the CPU if asked.

    Raises:
        DeviceError: The CPU was asked for and cannot compute in the precision of the export.
    """
    manifest = read_manifest(repository)
    precision = "" if manifest is None else manifest.precision
    if device == "cpu":
        if models and precision == "bf16":
            raise DeviceError(
                f"--device is cpu, and {repository} holds {', '.join(models)} in bf16, which ONNX Runtime computes "
                "on GPUs alone. Write the models for CPUs with `lychee export --target cpu`."
            )
        return {name: Choice(PLAIN_CPU, "--device cpu") for name in models}
    exported = f"cuda-{precision}"
    execution = exported if exported in AS_EXPORTED else "cuda-fp32"
    return {name: Choice(execution, "exported for GPUs", required=True) for name in models}


def _choose(
    folders: Mapping[str, Path], configs: Configs, error_budget: float, cache_dir: Path, device: Device
) -> tuple[dict[str, Choice], str]:
    open_models = [name for name, config in configs.items() if _execution(config) == UNCHOSEN]

    def plain(reason: str) -> tuple[dict[str, Choice], str]:
        return {name: Choice(PLAIN_CPU, reason) for name in open_models}, f"nothing was measured: {reason}"

    repository = folders[open_models[0]].parent
    rows_path = newest_version(repository / ASSETS_MODEL) / ROWS_FILENAME if ASSETS_MODEL in folders else None
    if rows_path is None or not rows_path.is_file():
        return plain(f"the repository has no {ROWS_FILENAME}; run `lychee export` again")
    expected = read_artifacts(repository).get(f"{ASSETS_MODEL}/{ROWS_FILENAME}")
    if expected != hashlib.sha256(rows_path.read_bytes()).hexdigest():
        return plain(f"{ROWS_FILENAME} is not the one that the manifest names; run `lychee export` again")
    task = replace(_make_task(folders, configs, rows_path, error_budget, cache_dir), device=device)
    circumstances = describe_circumstances(task)
    known, difference = recall(cache_dir, task, circumstances)
    if known is not None:
        return known, "remembered"
    found = _measure(task)
    if isinstance(found, str):
        return plain(found)
    error = max(measured[PLAIN_CPU].error for measured in found.models.values())
    manifest = read_manifest(repository)
    if manifest is not None and manifest.precision == "fp32" and error > EXACT_TOLERANCE:
        return plain(f"{PLAIN_CPU} itself is off by {error:.2g} on the reference rows; run `lychee verify`")
    choices = choose(found.models, error_budget)
    failure = "there was not enough time"
    if found.complete:
        failure = remember(cache_dir, task, circumstances, choices)
    details = [f"measured in {found.seconds:.1f} s"]
    if difference:
        details.append(f"again, for {difference} than remembered")
    if failure:
        details.append(f"and will be again: {failure}")
    return choices, ", ".join(details)


def _make_task(
    folders: Mapping[str, Path], configs: Configs, rows_path: Path, error_budget: float, cache_dir: Path
) -> Task:
    ensembles = {
        name: [
            Step(step.model_name, dict(step.input_map), dict(step.output_map))
            for step in config.ensemble_scheduling.step
        ]
        for name, config in configs.items()
        if config.platform == "ensemble"
    }
    models = {
        name: ModelTask(
            str(model_path(folders[name], config)),
            int(config.parameters["intra_op_thread_count"].string_value or 0)
            if "intra_op_thread_count" in config.parameters
            else 0,
            _execution(config) == UNCHOSEN,
        )
        for name, config in configs.items()
        if config.platform != "ensemble" and name != ASSETS_MODEL
    }
    return Task(str(rows_path), models, ensembles, error_budget, str(cache_dir / "openvino"))


def _measure(task: Task) -> Measurements | str:
    """Measure in a process of its own; return why that failed, if it did."""
    found, failure = run_module("measuring", task.to_json(), MEASURING_TIMEOUT_S, doing="measuring")
    return failure or Measurements.from_json(found)


def _execution(config: model_config_pb2.ModelConfig) -> str | None:
    return config.parameters["execution"].string_value if "execution" in config.parameters else None


def _link(
    folders: Mapping[str, Path], configs: Configs, choices: Mapping[str, Choice], error_budget: float, cache_dir: Path
) -> Path:
    """Lay out a repository of links, in which the models of `choices` have configurations of their own."""
    texts = {
        name: str(text_format.MessageToString(with_choice(configs[name], choice, error_budget), as_utf8=True))
        for name, choice in choices.items()
    }
    versions = {name: [str(version) for version in version_folders(folder)] for name, folder in folders.items()}
    content = repr(
        (sorted((name, str(folder), versions[name]) for name, folder in folders.items()), sorted(texts.items()))
    )
    digest = hashlib.sha256(content.encode()).hexdigest()[:_DIGITS]
    target = cache_dir / FOLDER / digest
    if all((target / name / "config.pbtxt").is_file() for name in folders):
        return target  # perhaps of a server that is loading it
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".linking-") as building:
        new = Path(building, "new")
        new.mkdir()
        for name, folder in folders.items():
            if name not in texts:
                (new / name).symlink_to(folder.absolute())
                continue
            (new / name).mkdir()
            (new / name / "config.pbtxt").write_text(texts[name], encoding="utf-8")
            for version in versions[name]:
                (new / name / version).symlink_to((folder / version).absolute())
        if target.exists():
            shutil.rmtree(target)
        new.rename(target)
    return target


def _remove_old(current: Path) -> None:
    """Keep the repositories that were asked for last, and those that a running server has, however old they are."""
    os.utime(current)
    in_use = " ".join(
        argument for process in psutil.process_iter(["cmdline"]) for argument in process.info["cmdline"] or ()
    )
    unused = [path for path in current.parent.iterdir() if path != current and path.name not in in_use]
    times = {path: path.stat().st_mtime_ns for path in unused}
    for path in sorted(times, key=times.__getitem__, reverse=True)[MOST_UNUSED:]:
        shutil.rmtree(path, ignore_errors=True)


def with_choice(config: model_config_pb2.ModelConfig, choice: Choice, error_budget: float) -> Any:
    """Return a copy of a configuration that says what executes the model, and why."""
    chosen = model_config_pb2.ModelConfig()
    chosen.CopyFrom(config)
    chosen.parameters["execution"].string_value = choice.execution
    chosen.parameters["execution_reason"].string_value = choice.reason
    chosen.parameters["error_budget"].string_value = format_budget(error_budget)
    if _reads_tokens_alone(chosen):
        for tensor in chosen.input:
            tensor.allow_ragged_batch = True
    if choice.required:
        chosen.parameters["device"].string_value = "cuda"
    gpus = [str(gpu) for group in chosen.instance_group for gpu in group.gpus]
    if gpus:
        chosen.parameters["gpus"].string_value = ",".join(gpus)
    for group in chosen.instance_group:
        if group.kind == model_config_pb2.ModelInstanceGroup.KIND_GPU:
            # Our backend holds the GPU. Triton needs none, and is not asked whether its CUDA fits the driver.
            group.kind = model_config_pb2.ModelInstanceGroup.KIND_CPU
            group.count = max(1, group.count) * max(1, len(group.gpus))
            group.ClearField("gpus")
    return chosen


def _reads_tokens_alone(config: model_config_pb2.ModelConfig) -> bool:
    """Tell whether requests of several lengths may be handed to the model at once; our backend sorts them itself.

    Otherwise Triton 2.51 keeps a core busy, and leaves the model idle, while a request waits whose length is not that
    of the next batch: 0.2 to 0.9 s of CPU time for 100 texts that take 3. Images are left out: a request of few of them
    would wait for the answers to all.
    Source: https://github.com/triton-inference-server/core/blob/r24.10/src/dynamic_batch_scheduler.cc, GetDynamicBatch
    returns without a word that the batch is full where it can add nothing to one that waits.
    """
    tokens = all(each.data_type == model_config_pb2.TYPE_INT64 and -1 in each.dims for each in config.input)
    return tokens and len(config.input) > 0 and config.HasField("dynamic_batching")


def without_choice(config: model_config_pb2.ModelConfig) -> Any:
    """Return a copy in which what `with_choice` wrote is open again."""
    opened = model_config_pb2.ModelConfig()
    opened.CopyFrom(config)
    if "execution_reason" in opened.parameters:
        opened.parameters["execution"].string_value = UNCHOSEN
        del opened.parameters["execution_reason"]
        del opened.parameters["error_budget"]
        opened.parameters.pop("device", None)
        for tensor in opened.input:
            tensor.ClearField("allow_ragged_batch")
    return opened

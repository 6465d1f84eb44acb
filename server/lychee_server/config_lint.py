"""What is wrong with the configurations of a model repository, by file, line and key, before Triton has to say it.

Triton's own messages often name none of them: an unknown key is "failed to read text proto". What is an "error" here
was tried with Triton 2.51 on a machine without a GPU: it refuses the model.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final, TypeAlias

from lychee_client.repository import MODEL_FILENAME, version_folders
from tritonclient.grpc import model_config_pb2

from lychee_server.config_text import ConfigFile, Problem, read_config, suggest
from lychee_server.ensemble_lint import ensemble_problems
from lychee_server.execution.onnx_sessions import EXECUTIONS, UNCHOSEN

BACKENDS: Final = frozenset({"onnxruntime", "python"})
CONTAINER_BACKENDS: Final = BACKENDS | {"tensorrt"}
ACCELERATORS: Final = {"cpu_execution_accelerator": ("openvino",), "gpu_execution_accelerator": ("cuda", "tensorrt")}
OPENVINO_PRECISIONS: Final = frozenset({"bf16", "fp32"})
# Those that our backend reads, and those that the C++ backend reads.
# Source: https://github.com/triton-inference-server/onnxruntime_backend/blob/r24.10/src/onnxruntime.cc
NUMBER_PARAMETERS: Final = {
    "enable_mem_arena": 1,
    "enable_mem_pattern": 1,
    "execution_mode": 1,
    "inter_op_thread_count": None,
    "intra_op_thread_count": None,
    "max_run_elements": None,
}
OTHER_PARAMETERS: Final = frozenset(
    {
        "arena_extend_strategy",
        "cudnn_conv_algo_search",
        "do_copy_in_default_stream",
        "error_budget",
        "execution",
        "execution_reason",
        "gpu_mem_limit",
        "memory.enable_memory_arena_shrinkage",
        "session.use_device_allocator_for_initializers",
    }
)
EXECUTION: Final = "execution"
MAXIMUM_PREFIX: Final = "maximum."
QUEUE_FIELDS: Final = ("priority_levels", "default_queue_policy", "priority_queue_policy")
_Group: Final = model_config_pb2.ModelInstanceGroup


Rule: TypeAlias = Callable[[ConfigFile, int], Iterable[Problem]]  # the number is that of GPUs


def lint_repository(repository: Path, *, gpu_count: int) -> tuple[int, list[Problem]]:
    """Check every `config.pbtxt` and every variant in `configs/`.

    Args:
        repository: The folder that has one folder per model.
        gpu_count: How many NVIDIA GPUs this machine has.

    Returns:
        How many files there are, and their problems by file and line.
    """
    problems: list[Problem] = []
    files: list[ConfigFile] = []
    models: dict[str, Any] = {}
    paths = sorted([*repository.glob("*/config.pbtxt"), *repository.glob("*/configs/*.pbtxt")])
    for path in paths:
        main = path.name == "config.pbtxt" and path.parent.parent == repository
        folder = path.parent if main else path.parent.parent
        file, found = read_config(path, folder)
        problems += found
        if file is not None:
            files.append(file)
        if main:
            models[folder.name] = file.message if file is not None else None
    for file in files:
        for rule in RULES:
            problems += rule(file, gpu_count)
        problems += ensemble_problems(file, models)
    return len(paths), sorted(problems, key=lambda problem: (problem.path, problem.line, problem.key))


def check_name(file: ConfigFile, _: int) -> Iterator[Problem]:
    """The name, if there is one, is the folder's."""
    field = file.root.get("name")
    if field is not None and field.value != file.folder.name:
        seen = f"is {field.value}, but the model's folder is {file.folder.name}"
        yield file.problem(field, seen, f'write name: "{file.folder.name}", or rename the folder')


def check_versions(file: ConfigFile, _: int) -> Iterator[Problem]:
    """Every version that Triton will serve has its folder, and its model file where the backend needs one."""
    present = version_folders(file.folder)
    policy = file.message.version_policy
    served = present[-max(1, policy.latest.num_versions) :]
    if policy.HasField("all"):
        served = present
    if policy.HasField("specific"):
        served = [version for version in policy.specific.versions if version in present]
        specific = file.root.get("version_policy", "specific") or file.root
        for field, version in zip(specific.all("versions"), policy.specific.versions, strict=True):
            if version not in present:
                seen = f"is {version}, but {file.folder} has {', '.join(map(str, present)) or 'no version'}"
                yield file.problem(field, seen, "name a version that is there, or run `lychee export`")
    if not present:
        seen = f"the model has no version: {file.folder / '1'} is missing"
        yield file.problem(None, seen, "run `lychee export` to write it", key="version_policy")
    if file.message.backend != "onnxruntime" or is_ensemble(file) or file.is_variant:
        return
    filename = file.message.default_model_filename or MODEL_FILENAME
    for version in served:
        path = file.folder / str(version) / filename
        if not path.exists():
            advice = "run `lychee export` to write it, or name the file that is there"
            named = file.root.get("default_model_filename")
            yield file.problem(named, f"{path} is missing", advice, key="default_model_filename")


def check_backend(file: ConfigFile, _: int) -> Iterator[Problem]:
    """The backend is one that Triton has here, or in a variant anywhere; an ensemble says so, and has none."""
    known = CONTAINER_BACKENDS if file.is_variant else BACKENDS
    field = file.root.get("backend")
    if is_ensemble(file):
        if field is not None:
            seen = f"is {field.value}, but an ensemble has no backend"
            yield file.problem(field, seen, 'remove it; platform: "ensemble" says enough')
        if file.message.platform != "ensemble":
            seen = f"is {file.message.platform!r}, but the model has ensemble_scheduling"
            yield file.problem(file.root.get("platform"), seen, 'write platform: "ensemble"', key="platform")
    elif field is not None and field.value not in known:
        seen = f"is {field.value}, which this machine's Triton does not have (NVIDIA's container has more)"
        yield file.problem(field, seen, suggest(field.value or "", known))


def check_batching(file: ConfigFile, _: int) -> Iterator[Problem]:
    """Dynamic batching keeps its limits, and has no queue settings that make Triton stall."""
    batching = file.root.get("dynamic_batching")
    if batching is None:
        return
    message, limit = file.message.dynamic_batching, file.message.max_batch_size
    for field, size in zip(batching.all("preferred_batch_size"), message.preferred_batch_size, strict=True):
        if size > limit:
            seen = f"is {size}, above max_batch_size {limit}"
            yield file.problem(field, seen, f"write at most {limit}, or leave it out")
    levels, default = message.priority_levels, message.default_priority_level
    if levels and not 1 <= default <= levels:
        named = batching.get("default_priority_level") or batching.get("priority_levels")
        seen = f"default_priority_level is {default}, but the levels are 1 to {levels}"
        yield file.problem(named, seen, f"write default_priority_level: {levels}")
    for name in QUEUE_FIELDS:
        for queue in batching.all(name):
            seen = "with it, Triton 2.51 leaves requests in the queue for 500 ms although the model is idle"
            advice = "remove it, unless the queues matter more than the latency"
            yield file.problem(queue, seen, advice, severity="warning")


def check_instances(file: ConfigFile, gpu_count: int) -> Iterator[Problem]:
    """Instances run on devices that this machine has; an ensemble has none."""
    for field, group in zip(file.root.all("instance_group"), file.message.instance_group, strict=True):
        if is_ensemble(file):
            seen = "an ensemble runs nothing itself, and Triton refuses one with an instance_group"
            yield file.problem(field, seen, "remove it")
        elif group.kind == _Group.KIND_GPU and not gpu_count and not file.is_variant:
            seen = "is KIND_GPU, but this machine has no NVIDIA GPU that Triton could use"
            yield file.problem(field.get("kind") or field, seen, "write KIND_CPU, or run it where there is one")
        elif group.gpus and group.kind == _Group.KIND_CPU:
            yield file.problem(field.get("gpus"), "names GPUs, but the kind is KIND_CPU", "remove one of the two")
        elif gpu_count and any(gpu >= gpu_count for gpu in group.gpus):
            seen = f"names GPU {max(group.gpus)}, but this machine has only {gpu_count}, counted from 0"
            yield file.problem(field.get("gpus"), seen, f"name GPUs from 0 to {gpu_count - 1}")


def check_accelerators(file: ConfigFile, _: int) -> Iterator[Problem]:
    """Execution accelerators are known to the backend."""
    parent = file.root.get("optimization", "execution_accelerators")
    if parent is None or file.message.backend != "onnxruntime":
        return
    for kind, known in ACCELERATORS.items():
        for accelerator in parent.all(kind):
            name = accelerator.text("name")
            if name not in known:
                seen = f"is {name!r}, which the backend does not know"
                yield file.problem(accelerator.get("name") or accelerator, seen, suggest(name, known))
            for parameter in accelerator.all("parameters") if name == "openvino" else []:
                precision = parameter.text("value")
                if parameter.text("key") == "precision" and precision not in OPENVINO_PRECISIONS:
                    advice = suggest(precision, OPENVINO_PRECISIONS)
                    yield file.problem(parameter.get("value"), f"is {precision!r}", advice)


def check_parameters(file: ConfigFile, _: int) -> Iterator[Problem]:
    """Parameters are those that the backend reads; it ignores others in silence."""
    if file.message.backend != "onnxruntime":
        return
    for field in file.root.all("parameters"):
        name = field.text("key")
        value = field.get("value", "string_value")
        text = "" if value is None or value.value is None else value.value
        if name in NUMBER_PARAMETERS or name.startswith(MAXIMUM_PREFIX):
            largest = NUMBER_PARAMETERS.get(name)
            if not (text.isascii() and text.isdigit()) or (largest is not None and int(text) > largest):
                upper = "" if largest is None else f" to {largest}"
                yield file.problem(value or field, f"is {text!r}", f"write a whole number from 0{upper}")
        elif name == EXECUTION and text not in {UNCHOSEN, *EXECUTIONS}:
            yield file.problem(value or field, f"is {text!r}", suggest(text, {UNCHOSEN, *EXECUTIONS}))
        elif name not in OTHER_PARAMETERS:
            seen = "no backend reads this parameter, so it changes nothing"
            advice = suggest(name, {*NUMBER_PARAMETERS, *OTHER_PARAMETERS, f"{MAXIMUM_PREFIX}<input or axis>"})
            yield file.problem(field.get("key"), seen, advice, severity="warning")


def check_response_cache(file: ConfigFile, gpu_count: int) -> Iterator[Problem]:
    """Cached responses are in CPU memory."""
    kinds = {group.kind for group in file.message.instance_group} or {_Group.KIND_AUTO}
    on_gpu = gpu_count > 0 and kinds != {_Group.KIND_CPU}
    if file.message.response_cache.enable and on_gpu and not is_ensemble(file):
        seen = "the outputs are in GPU memory, where Triton's response cache never hits"
        yield file.problem(file.root.get("response_cache"), seen, "remove it, or write KIND_CPU", severity="warning")


def is_ensemble(file: ConfigFile) -> bool:
    """Tell an ensemble from a model that runs something itself."""
    return file.message.platform == "ensemble" or file.root.get("ensemble_scheduling") is not None


RULES: Final[tuple[Rule, ...]] = (
    check_name,
    check_versions,
    check_backend,
    check_batching,
    check_instances,
    check_accelerators,
    check_parameters,
    check_response_cache,
)

"""The rules of ensembles: every tensor comes from somewhere, fits where it goes, and is used."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lychee_client.repository import version_folders
from tritonclient.grpc import model_config_pb2

from lychee_server.config_text import ConfigFile, Field, Problem, suggest


@dataclass(frozen=True, slots=True)
class _Tensor:
    """A tensor of a model as its configuration declares it. The spec is None where that cannot be read."""

    owner: str
    spec: Any
    batched: bool

    def difference(self, other: "_Tensor") -> str:
        """Return how the other tensor differs in type or shape; empty if it does not, or it cannot be told."""
        if self.spec is None or other.spec is None:
            return ""
        if self.spec.data_type != other.spec.data_type:
            return f"{_type_name(other)} in {other.owner}, but {_type_name(self)} in {self.owner}"
        reshaped = self.spec.HasField("reshape") or other.spec.HasField("reshape")
        if reshaped or self.batched != other.batched:
            return ""
        dims, others = list(self.spec.dims), list(other.spec.dims)
        if len(dims) == len(others) and all(
            -1 in pair or pair[0] == pair[1] for pair in zip(dims, others, strict=True)
        ):
            return ""
        return f"{others} in {other.owner}, but {dims} in {self.owner}"


def ensemble_problems(file: ConfigFile, models: Mapping[str, Any]) -> Iterator[Problem]:
    """Check the steps of an ensemble against the models that they name.

    Args:
        file: Any configuration; one that is no ensemble has no problems here.
        models: Protobuf message of every model in the repository, None where it cannot be read.
    """
    scheduling = file.root.get("ensemble_scheduling")
    if scheduling is None:
        return
    steps = list(zip(scheduling.all("step"), file.message.ensemble_scheduling.step, strict=True))
    made = _made_tensors(file, models)
    for field, step in steps:
        yield from _step_problems(file, field, step, models, made)
    used = {tensor for _, step in steps for tensor in step.input_map.values()}
    for field, spec in zip(file.root.all("input"), file.message.input, strict=True):
        if spec.name not in used:
            yield file.problem(field.get("name") or field, f"no step reads {spec.name!r}", "map it, or remove it")
    for field, spec in zip(file.root.all("output"), file.message.output, strict=True):
        if spec.name not in made:
            yield file.problem(field.get("name") or field, f"no step makes {spec.name!r}", suggest(spec.name, made))
        elif difference := _Tensor(file.folder.name, spec, file.message.max_batch_size > 0).difference(made[spec.name]):
            yield file.problem(field, f"{spec.name!r} is {difference}", "make them equal, or run `lychee export`")
    yield from _batch_problems(file, models)


def _made_tensors(file: ConfigFile, models: Mapping[str, Any]) -> dict[str, _Tensor]:
    """Return the tensors that a step may read: the ensemble's inputs, and what the steps make."""
    batched = file.message.max_batch_size > 0
    made = {spec.name: _Tensor(file.folder.name, spec, batched) for spec in file.message.input}
    for step in file.message.ensemble_scheduling.step:
        for name, tensor in step.output_map.items():
            made[tensor] = _tensor(step.model_name, models.get(step.model_name), "output", name)
    return made


def _step_problems(
    file: ConfigFile, field: Field, step: Any, models: Mapping[str, Any], made: Mapping[str, _Tensor]
) -> Iterator[Problem]:
    name = step.model_name
    if name not in models:
        seen = f"is {name!r}, which is not in the repository"
        yield file.problem(field.get("model_name") or field, seen, suggest(name, models))
        return
    versions = version_folders(file.folder.parent / name)
    if step.model_version > 0 and step.model_version not in versions:
        seen = f"is {step.model_version}, but {name} has {', '.join(map(str, versions)) or 'none'}"
        yield file.problem(field.get("model_version"), seen, "write -1 for the newest")
    model = models[name]
    if model is None:
        return  # its own configuration has the problem
    for kind, specs in (("input", model.input), ("output", model.output)):
        names = [spec.name for spec in specs]
        for entry in field.all(f"{kind}_map"):
            if entry.text("key") not in names:
                seen = f"{name} has no {kind} {entry.text('key')!r}"
                yield file.problem(entry.get("key") or entry, seen, suggest(entry.text("key"), names))
    for entry in field.all("input_map"):
        key, tensor = entry.text("key"), entry.text("value")
        if tensor not in made:
            seen = f"{tensor!r} is no input of the ensemble, and no step makes it"
            yield file.problem(entry.get("value") or entry, seen, suggest(tensor, made))
        elif difference := _tensor(name, model, "input", key).difference(made[tensor]):
            seen = f"{tensor!r} is {difference}"
            yield file.problem(entry.get("value") or entry, seen, "make them equal, or run `lychee export`")
    for spec in model.input:
        if not spec.optional and spec.name not in step.input_map:
            seen = f"the input {spec.name!r} of {name} is not mapped"
            yield file.problem(field.get("model_name") or field, seen, f"add an input_map with the key {spec.name}")


def _batch_problems(file: ConfigFile, models: Mapping[str, Any]) -> Iterator[Problem]:
    inner = {step.model_name: models.get(step.model_name) for step in file.message.ensemble_scheduling.step}
    for name, model in inner.items():
        if model is not None and model.max_batch_size < file.message.max_batch_size:
            seen = f"is {file.message.max_batch_size}, but {name} in the ensemble takes {model.max_batch_size} at most"
            yield file.problem(file.root.get("max_batch_size"), seen, f"write at most {model.max_batch_size}")


def _tensor(owner: str, model: Any, kind: str, name: str) -> _Tensor:
    specs = [] if model is None else getattr(model, kind)
    spec = next((spec for spec in specs if spec.name == name), None)
    return _Tensor(owner, spec, model is not None and model.max_batch_size > 0)


def _type_name(tensor: _Tensor) -> str:
    return str(model_config_pb2.DataType.Name(tensor.spec.data_type))

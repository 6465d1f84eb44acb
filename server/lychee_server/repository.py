"""A Triton model repository on disk: which models it has, and whether their files are there."""

from pathlib import Path

from lychee_client import ConfigurationError
from lychee_client import repository as files
from lychee_client.manifest import Manifest
from lychee_client.repository import (
    ASSETS_MODEL,
    EXTERNAL_DATA_SUFFIX,
    MODEL_FILENAME,
    newest_version,
    read_manifest,
)
from tritonclient.grpc import model_config_pb2

from lychee_server.errors import RepositoryError


def check_repository(repository: Path, config_name: str | None = None) -> list[str]:
    """Return the names of the repository's models, after checking that each has what it needs.

    Args:
        repository: The folder that has one folder per model.
        config_name: Triton takes `configs/<config_name>.pbtxt` of a model that has it, else `config.pbtxt`.

    Raises:
        RepositoryError: There is no such folder, no model in it, a configuration cannot be read, or a file is missing.
    """
    if not repository.is_dir():
        raise RepositoryError(
            f"The model repository {repository.absolute()} does not exist. "
            "Run `lychee export`, or name the folder with --repository."
        )
    names = sorted(path.parent.name for path in repository.glob("*/config.pbtxt"))
    if not names:
        raise RepositoryError(
            f"{repository.absolute()} holds no model: expected folders with a config.pbtxt. "
            "Run `lychee export`, or name the folder with --repository."
        )
    manifest = read_manifest(repository)
    missing = [path for name in names for path in _missing_files(repository / name, config_name, manifest)]
    if missing:
        lines = "\n".join(f"  {path}" for path in missing)
        raise RepositoryError(
            f"The model repository is incomplete. Missing:\n{lines}\nRun `lychee export` to write them."
        )
    return names


def check_variant(repository: Path, config_name: str | None) -> None:
    """See that each model's variant has the tensors of its `config.pbtxt`: a leftover of another model has others.

    Raises:
        RepositoryError: One has others, or a configuration cannot be read.
    """
    if config_name is None:
        return
    problems = []
    for path in sorted(repository.glob(f"*/configs/{config_name}.pbtxt")):
        folder = path.parent.parent
        expected, found = _tensors(read_config(folder)), _tensors(read_config(folder, config_name))
        wrong = [name for name in sorted({*expected, *found}) if expected.get(name) != found.get(name)]
        if wrong:
            told = "; ".join(
                f"{name} {_describe(found.get(name))} there and {_describe(expected.get(name))} in config.pbtxt"
                for name in wrong
            )
            problems.append(f"  {folder.name}: {told}")
    if problems:
        lines = "\n".join(problems)
        raise RepositoryError(
            f"--config-name {config_name}: configs/{config_name}.pbtxt is for another model than config.pbtxt:\n{lines}"
            "\nRun `lychee tune` again, remove these files, or leave --config-name out."
        )


def _tensors(config: model_config_pb2.ModelConfig) -> dict[str, list[int]]:
    """Return the dimensions of a model's tensors by the words for each; one that does not batch has one more."""
    batch = [-1] if config.max_batch_size else []
    tensors = [("input", tensor) for tensor in config.input] + [("output", tensor) for tensor in config.output]
    return {f"{kind} {tensor.name}": [*batch, *tensor.dims] for kind, tensor in tensors}


def _describe(dims: list[int] | None) -> str:
    return "is absent" if dims is None else f"has {dims}"


def describe_variant(repository: Path, config_name: str | None) -> str:
    """Say that no model has a variant, so that Triton takes each `config.pbtxt`; empty if one has it."""
    if config_name is None or any(repository.glob(f"*/configs/{config_name}.pbtxt")):
        return ""
    found = sorted({path.stem for path in repository.glob("*/configs/*.pbtxt")})
    return (
        f"--config-name {config_name}: no model has configs/{config_name}.pbtxt, so each runs as its config.pbtxt "
        f"says. Names that some model has: {', '.join(found) or '(none)'}"
    )


def read_config(folder: Path, config_name: str | None = None) -> model_config_pb2.ModelConfig:
    """Read the configuration of the model in a folder: the variant, if it has that, else `config.pbtxt`.

    Raises:
        RepositoryError: It is no configuration.
    """
    try:
        return files.read_config(folder, config_name)
    except ConfigurationError as error:
        raise RepositoryError(f"{error}. Correct it, or run `lychee export` again.") from error


def model_path(folder: Path, config: model_config_pb2.ModelConfig) -> Path:
    """Return the file of the model in a folder."""
    return newest_version(folder) / (config.default_model_filename or MODEL_FILENAME)


def _missing_files(folder: Path, config_name: str | None, manifest: Manifest | None) -> list[Path]:
    config = read_config(folder, config_name)
    version = newest_version(folder)
    if manifest is not None and manifest.version and folder.name in (ASSETS_MODEL, *manifest.max_batch_size):
        version = folder / str(manifest.version)  # which clients ask for
    if config.platform == "ensemble":  # needs the version's folder, though nothing in it
        return [] if version.is_dir() else [version]
    if config.backend != "onnxruntime":
        return []
    path = version / (config.default_model_filename or MODEL_FILENAME)
    files = [path]
    artifacts = {} if manifest is None else manifest.artifacts
    if f"{folder.name}/{path.name}{EXTERNAL_DATA_SUFFIX}" in artifacts:  # the weights of a large model
        files.append(version / f"{path.name}{EXTERNAL_DATA_SUFFIX}")
    return [file for file in files if not file.exists()]


def read_artifacts(repository: Path) -> dict[str, str]:
    """Return the SHA-256 of the files that the newest export wrote, by name; empty if it left no manifest."""
    manifest = read_manifest(repository)
    return {} if manifest is None else dict(manifest.artifacts)

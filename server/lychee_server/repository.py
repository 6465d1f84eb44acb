"""A Triton model repository on disk: which models it has, and whether their files are there."""

from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from lychee_server._errors import RepositoryError

DEFAULT_MODEL_FILENAME = "model.onnx"


def check_repository(repository: Path, config_name: str | None = None) -> list[str]:
    """Return the names of the repository's models, after checking that each has what it needs.

    Args:
        repository: Folder with one folder per model.
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
    if config_name is not None and not list(repository.glob(f"*/configs/{config_name}.pbtxt")):
        found = sorted({path.stem for path in repository.glob("*/configs/*.pbtxt")})
        raise RepositoryError(
            f"No model in {repository.absolute()} has configs/{config_name}.pbtxt. "
            f"Names for --config-name: {', '.join(found) or '(none)'}."
        )
    missing = [path for name in names for path in _missing_files(repository / name, config_name)]
    if missing:
        lines = "\n".join(f"  {path}" for path in missing)
        raise RepositoryError(
            f"The model repository is incomplete. Missing:\n{lines}\nRun `lychee export` to write them."
        )
    return names


def _missing_files(folder: Path, config_name: str | None) -> list[Path]:
    variant = folder / "configs" / f"{config_name}.pbtxt"
    path = variant if config_name is not None and variant.is_file() else folder / "config.pbtxt"
    config = model_config_pb2.ModelConfig()
    try:
        text_format.Parse(path.read_text(encoding="utf-8"), config)
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise RepositoryError(f"{path} is not a Triton model configuration: {error}.") from error
    versions = sorted(int(child.name) for child in folder.iterdir() if child.is_dir() and child.name.isdigit())
    version = folder / str(versions[-1] if versions else 1)  # Triton serves the highest
    if config.platform == "ensemble":  # needs the version's folder, though nothing in it
        return [] if versions else [version]
    if config.backend != "onnxruntime":
        return []
    file = version / (config.default_model_filename or DEFAULT_MODEL_FILENAME)
    return [] if file.exists() else [file]

"""Where a checkpoint comes from, and how its files are read."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
import transformers
from safetensors import SafetensorError
from transformers import AutoTokenizer, PreTrainedModel

from lychee_export.checkpoint.hub import download
from lychee_export.checkpoint.weight_files import check_weights, hash_files, weight_files
from lychee_export.errors import CheckpointError

__all__ = ["CheckpointSource", "find_checkpoint"]

_BUNDLED = Path(__file__).parent / "bundled"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_REVISION_DIGITS = 12
_NAMED_KEYS = 5
_UNREAD_REVISION = "unread"
"""The revision of a folder before its weights are read."""

Model = TypeVar("Model", bound=PreTrainedModel)


@dataclass(frozen=True)
class CheckpointSource:
    """A checkpoint folder on this machine.

    Args:
        model_id: The name users know.
        revision: The name that identifies the weights.
        folder: The folder that holds config.json, weights and tokenizer.
        config: The content of config.json.
        weights: Whether they are on this machine and wanted; if not, models are built without values.
    """

    model_id: str
    revision: str
    folder: Path
    config: Mapping[str, Any] = field(repr=False)
    weights: bool = True

    def with_weights(self) -> CheckpointSource:
        """Download the weights if they are the hub's; name their revision if they lie in a folder.

        Raises:
            CheckpointError: There are no weights, or they cannot be downloaded.
        """
        if self.revision == _UNREAD_REVISION:
            digest = hash_files(weight_files(self.folder))
            return replace(self, revision=digest[:_REVISION_DIGITS], weights=True)
        download(self.model_id, self.revision, weights=True)
        return replace(self, weights=True)

    def read_json(self, name: str) -> dict[str, Any]:
        """Read a JSON file of the folder; an absent one is empty.

        Raises:
            CheckpointError: The file is not JSON, or is no object.
        """
        path = self.folder / name
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{path} is not JSON: {error}") from error
        if not isinstance(content, dict):
            raise CheckpointError(f"{path} holds a {type(content).__name__}, expected an object")
        return content

    def load_model(self, model_class: type[Model]) -> Model:
        """Load a model in float32 and evaluation mode, attention computed by plain matrix products.

        Without weights the model lies on the meta device.

        Raises:
            CheckpointError: Weights are absent, damaged, or do not fit the class.
        """
        if not self.weights:
            return self._build_model(model_class)
        check_weights(self.folder)
        try:
            with _quiet():
                loaded: Any = model_class.from_pretrained(
                    self.folder,
                    dtype=torch.float32,
                    attn_implementation="eager",
                    local_files_only=True,
                    output_loading_info=True,
                )
        except (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError) as error:
            raise CheckpointError(
                f"the checkpoint in {self.folder} does not fit {model_class.__name__}: {error}"
            ) from error
        model, report = loaded
        missing = sorted(report["missing_keys"])
        if missing:  # transformers would go on with random values
            named = ", ".join(missing[:_NAMED_KEYS])
            more = f" and {len(missing) - _NAMED_KEYS} more" if len(missing) > _NAMED_KEYS else ""
            raise CheckpointError(
                f"the weights in {self.folder} lack what {model_class.__name__} needs: {named}{more}. Take a "
                "checkpoint that was trained for ranking with this class"
            )
        complete: Model = model.eval()
        return complete

    def load_tokenizer(self) -> Any:
        """Load the tokenizer: a ``PreTrainedTokenizerFast``, whose ``backend_tokenizer`` is what the client gets.

        Raises:
            CheckpointError: There is no tokenizer, or it cannot be read.
        """
        try:
            with _quiet():
                tokenizer = AutoTokenizer.from_pretrained(self.folder, local_files_only=True)
        except Exception as error:  # tokenizers raises bare Exception for a damaged file
            raise CheckpointError(
                f"cannot read the tokenizer in {self.folder}: {' '.join(str(error).split())[:300]}. Expected "
                "tokenizer.json, or the files that its tokenizer_config.json asks for"
            ) from error
        files = sorted({"tokenizer.json", *tokenizer.vocab_files_names.values()})
        if not any((self.folder / name).is_file() for name in files):  # transformers would go on with an empty one
            raise CheckpointError(f"no tokenizer in {self.folder}; expected {' or '.join(files)}")
        if getattr(tokenizer, "backend_tokenizer", None) is None:
            raise CheckpointError(
                f"the tokenizer in {self.folder} is a {type(tokenizer).__name__}, which has no `tokenizers` file; save "
                "the fast tokenizer beside the weights as tokenizer.json"
            )
        return tokenizer

    def _build_model(self, model_class: type[Model]) -> Model:
        try:
            with _quiet(), torch.device("meta"):
                config_class: Any = model_class.config_class
                model: Any = model_class(config_class.from_pretrained(self.folder, attn_implementation="eager"))
        except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
            raise CheckpointError(
                f"{self.folder / 'config.json'} does not fit {model_class.__name__}: {error}"
            ) from error
        empty: Model = model.eval()
        return empty


def find_checkpoint(checkpoint: str, revision: str | None = None) -> CheckpointSource:
    """Find a checkpoint: a bundled one, a folder, or a model of the hub. Its weights are not touched.

    Args:
        checkpoint: "lychee-mini", a path, or "owner/name".
        revision: The branch, tag or commit on the hub. None takes its main branch.

    Raises:
        CheckpointError: There is no such checkpoint, or its config.json cannot be read.
    """
    bundled = _BUNDLED / checkpoint.replace("-", "_")
    folder = Path(checkpoint)
    if "/" not in checkpoint and bundled.is_dir():
        model_id, folder = checkpoint, bundled
    elif folder.is_dir():
        model_id = folder.resolve().name
    elif _HUB_ID.fullmatch(checkpoint) and not folder.exists():
        folder = download(checkpoint, revision, weights=False)
        return _read_config(checkpoint, folder.name, folder)
    else:
        names = ", ".join(sorted(path.name.replace("_", "-") for path in _BUNDLED.iterdir() if path.is_dir()))
        raise CheckpointError(
            f"no checkpoint {checkpoint!r}: there is no such folder. Give a folder with a config.json, a model of the "
            f"hub as owner/name, or one of the bundled names: {names}"
        )
    if revision is not None:
        raise CheckpointError(
            f"{folder} is a folder and has no revision {revision!r}; leave the revision out, or name a model of the hub"
        )
    return _read_config(model_id, _UNREAD_REVISION, folder)


def _read_config(model_id: str, revision: str, folder: Path) -> CheckpointSource:
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"no checkpoint {model_id!r}: {folder / 'config.json'} does not exist")
    source = CheckpointSource(model_id, revision, folder, {}, weights=False)
    return replace(source, config=source.read_json("config.json"))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' progress bars and its advice off the terminal: what matters raises."""
    logging: Any = transformers.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()

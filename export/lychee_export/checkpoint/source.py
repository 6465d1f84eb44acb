"""Where a checkpoint comes from, and how its files are read."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import AutoTokenizer, CLIPConfig, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

from lychee_export.checkpoint import open_clip
from lychee_export.checkpoint.adapter import merge_adapter
from lychee_export.checkpoint.hub import download
from lychee_export.checkpoint.json_files import read_object
from lychee_export.checkpoint.layout import OPEN_CLIP, TRANSFORMERS, Layout
from lychee_export.checkpoint.names import read_names
from lychee_export.checkpoint.reading import Reading
from lychee_export.checkpoint.refusals import newer_transformers
from lychee_export.checkpoint.stored_weights import read_as_float32
from lychee_export.checkpoint.weight_files import check_weights, hash_files, held_bytes, stored_dtype, weight_files
from lychee_export.errors import CheckpointError

__all__ = ["UNREAD_REVISION", "CheckpointSource"]

_REVISION_DIGITS = 12
_NAMED_KEYS = 5
_MISFITS = (OSError, ValueError, TypeError, KeyError, RuntimeError, StrictDataclassError)
"""What transformers raises where config.json or the weights do not fit a class."""
_HALF_DTYPES = (torch.bfloat16, torch.float16)
UNREAD_REVISION = "unread"
"""The revision of a folder before its weights are read."""
_VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt")
_SENTENCEPIECE = "*.model"

Model = TypeVar("Model", bound=PreTrainedModel)


@dataclass(frozen=True)
class CheckpointSource:
    """A checkpoint folder on this machine.

    Args:
        model_id: The name users know.
        revision: The name that identifies the weights.
        folder: The folder that holds config.json, weights and tokenizer.
        config: The content of config.json, or what the layout has instead.
        weights: Whether they are on this machine and wanted; if not, models are built without values.
        layout: How the files are named.
        files: The contents of JSON files that the layout has under other names, by transformers' names.
        base: The base model of an adapter, which gives what the adapter's folder lacks.
        reading: What the user says of how it is read.
    """

    model_id: str
    revision: str
    folder: Path
    config: Mapping[str, Any] = field(repr=False)
    weights: bool = True
    layout: Layout = TRANSFORMERS
    files: Mapping[str, dict[str, Any]] = field(default_factory=dict, repr=False)
    base: CheckpointSource | None = None
    reading: Reading = field(default_factory=Reading)

    @property
    def names(self) -> tuple[str, ...]:
        """The names that the checkpoint and what it was made from go by."""
        return (self.model_id, *read_names(self.folder), *(self.base.names if self.base else ()))

    def with_weights(self) -> CheckpointSource:
        """Download the weights if they are the hub's; name their revision if they lie in a folder.

        Raises:
            CheckpointError: There are no weights, or they cannot be downloaded.
        """
        base = self.base and self.base.with_weights()
        revision = self.revision
        if revision == UNREAD_REVISION:
            folders = (self.folder, *(self.folder / part for part in self.layout.parts))
            files = [file for folder in folders for file in weight_files(folder, self.layout)]
            revision = hash_files(files)[:_REVISION_DIGITS]
        else:
            for folder in (self.layout.subfolder, *self.layout.parts):
                download(self.model_id, revision, self.layout.patterns, folder)
        if base is not None:
            revision = f"{revision}+{base.revision[:_REVISION_DIGITS]}"
        return replace(self, revision=revision, weights=True, base=base)

    def read_json(self, name: str) -> dict[str, Any]:
        """Read a JSON file of the folder; an absent one is the base model's, or empty.

        Raises:
            CheckpointError: The file is not JSON, or is no object.
        """
        if name in self.files:
            return self.files[name]
        content = read_object(self.folder / name)
        return self.base.read_json(name) if self.base and not content else content

    def load_model(self, model_class: type[Model]) -> Model:
        """Load a model that computes in float32, in evaluation mode, attention computed by plain matrix products.

        Weights of 16 bits stay in the checkpoint's files until an operator takes them; see ``stored_weights``. Without
        weights the model lies on the meta device.

        Raises:
            CheckpointError: Weights are absent, damaged, or do not fit the class.
        """
        full = self.base or self
        if not self.weights:
            return full._build_model(model_class)
        check_weights(full.folder, full.layout)
        if self.base is not None:  # in float32, because merging changes the weights
            merged: Any = merge_adapter(self.base._load(model_class, torch.float32), self.folder)
            complete: Model = merged.eval()
            return complete
        model = self._load(model_class, stored_dtype(self.folder, self.layout))
        if any(buffer.dtype in _HALF_DTYPES for buffer in model.buffers()):  # computed in what the weights have
            model = self._load(model_class, torch.float32)
        read_as_float32(model)
        return model

    def load_part(self, name: str) -> dict[str, torch.Tensor]:
        """Read the weights of one of the layout's parts, in float32, by name.

        Raises:
            CheckpointError: Weights are absent or damaged.
        """
        folder = self.folder / name
        weights: dict[str, torch.Tensor] = {}
        check_weights(folder, self.layout)
        for path in weight_files(folder, self.layout):
            try:
                weights |= load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)
            except Exception as error:  # safetensors and pickle raise whatever they like for a damaged file
                raise CheckpointError(f"cannot read the weights in {path}: {error}; download it again") from error
        return {key: tensor.float() for key, tensor in weights.items()}

    def held_bytes(self, parameters: int, *, halved: bool) -> int:
        """Return how much memory the loaded weights take, beside what is read from mapped files.

        Args:
            parameters: How many weights the model has.
            halved: Whether there is a copy in 16 bits of what is not stored so.
        """
        if self.base is not None:  # merging an adapter changes the weights
            return (6 if halved else 4) * parameters
        copied = halved and stored_dtype(self.folder, self.layout) == torch.float32
        return held_bytes(self.folder, self.layout) + (2 * parameters if copied else 0)

    def load_tokenizer(self, config: PreTrainedConfig | None = None, *, file_alone: bool = False) -> Any:
        """Load the tokenizer: a ``PreTrainedTokenizerFast``, whose ``backend_tokenizer`` is what the client gets.

        Args:
            config: The configuration of the model, where transformers does not know the model_type of config.json. None
                has transformers read config.json.
            file_alone: Whether tokenizer.json is taken as it is. Otherwise the class that tokenizer_config.json names
                takes the vocabulary from it, and writes much of the rest anew.

        Raises:
            CheckpointError: There is no tokenizer, or it cannot be read.
        """
        if not any((self.folder / name).is_file() for name in _VOCABULARIES):
            if self.base is not None:
                return self.base.load_tokenizer(config, file_alone=file_alone)
            pieces = sorted(self.folder.glob(_SENTENCEPIECE))
            if pieces:
                raise CheckpointError(
                    f"the tokenizer in {self.folder} is a SentencePiece file alone ({pieces[0].name}); the client "
                    "reads tokenizer.json. Write one where the package sentencepiece is installed: "
                    "AutoTokenizer.from_pretrained(folder).save_pretrained(folder)"
                )
        try:
            with _quiet():
                given = config or (self._read_config(None) if self.files else None)
                loader: Any = PreTrainedTokenizerFast if file_alone else AutoTokenizer
                tokenizer = loader.from_pretrained(
                    self.folder, config=given, local_files_only=True, trust_remote_code=False
                )
        except Exception as error:  # tokenizers raises bare Exception for a damaged file
            if "auto_map" in self.read_json("tokenizer_config.json"):
                raise CheckpointError(
                    f"the tokenizer in {self.folder} is Python code of the checkpoint (auto_map in "
                    "tokenizer_config.json), which is never run here. Put the tokenizer.json of a fast tokenizer "
                    "beside the weights, and take auto_map out"
                ) from error
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

    def _read_config(self, model_class: type[PreTrainedModel] | None) -> Any:
        if model_class is None and self.layout is not OPEN_CLIP:
            return PreTrainedConfig()  # tokenizer_config.json says the rest
        config_class: Any = CLIPConfig if model_class is None else model_class.config_class
        if self.files:
            return config_class.from_dict(dict(self.config))
        return config_class.from_pretrained(self.folder, local_files_only=True)

    def _load(self, model_class: type[Model], dtype: torch.dtype) -> Model:
        """Load the folder's weights in one dtype."""
        given: dict[str, Any] = {}
        if self.layout is OPEN_CLIP:
            given = {"state_dict": open_clip.read_weights(weight_files(self.folder, OPEN_CLIP))}
        try:
            with _quiet():
                loaded: Any = model_class.from_pretrained(
                    None if given else self.folder,
                    config=self._read_config(model_class),
                    dtype=dtype,
                    attn_implementation="eager",
                    local_files_only=True,
                    output_loading_info=True,
                    ignore_mismatched_sizes=True,  # refused below, with names and shapes
                    **given,
                )
        except (*_MISFITS, SafetensorError) as error:
            raise self._misfit(model_class, error) from error
        model, report = loaded
        self._check_report(model_class, report)
        complete: Model = model.eval()
        return complete

    def _check_report(self, model_class: type[PreTrainedModel], report: Mapping[str, Any]) -> None:
        """Refuse weights of other shapes, and those that transformers would go on without, with random values."""
        shapes = [
            f"{name} is {tuple(seen)}, expected {tuple(expected)}"
            for name, seen, expected in sorted(report["mismatched_keys"])
        ]
        if shapes:
            raise CheckpointError(
                f"the weights in {self.folder} have other shapes than {model_class.__name__} by config.json: "
                f"{_some(shapes)}. Take config.json and weights from one checkpoint"
            )
        missing = sorted(report["missing_keys"])
        if missing:
            raise CheckpointError(
                f"the weights in {self.folder} lack what {model_class.__name__} needs: {_some(missing)}. Take a "
                "checkpoint that was trained for ranking with this class"
            )

    def _misfit(self, model_class: type[PreTrainedModel], error: Exception) -> CheckpointError:
        return CheckpointError(
            f"the checkpoint in {self.folder} does not fit {model_class.__name__}: "
            f"{' '.join(str(error).split())[:300]}.{newer_transformers(self.config)}"
        )

    def _build_model(self, model_class: type[Model]) -> Model:
        try:
            with _quiet(), torch.device("meta"):
                config = self._read_config(model_class)
                config._attn_implementation = "eager"
                model: Any = model_class(config)
        except _MISFITS as error:
            raise self._misfit(model_class, error) from error
        empty: Model = model.eval()
        return empty


def _some(entries: Sequence[str]) -> str:
    """Name the first few."""
    more = f" and {len(entries) - _NAMED_KEYS} more" if len(entries) > _NAMED_KEYS else ""
    return f"{', '.join(entries[:_NAMED_KEYS])}{more}"


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

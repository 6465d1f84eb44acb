"""The ways in which checkpoints lie on disk, and how to tell them apart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from lychee_export.checkpoint.json_files import read_array, read_object
from lychee_export.errors import CheckpointError

__all__ = [
    "ADAPTER",
    "ADAPTER_CONFIG",
    "LAYOUTS",
    "MODULES",
    "OPEN_CLIP",
    "OPEN_CLIP_CONFIG",
    "TRANSFORMERS",
    "Layout",
    "find_layout",
]

ADAPTER_CONFIG = "adapter_config.json"
OPEN_CLIP_CONFIG = "open_clip_config.json"
MODULES = "modules.json"
"""What a model of sentence-transformers is made of, by class and folder."""


@dataclass(frozen=True)
class Layout:
    """One way.

    Args:
        weights: The names of the weight file, in order of preference. Each has an index if it is split into shards.
        subfolder: The folder inside the checkpoint that holds its files; empty where it is the checkpoint's own.
        parts: The folders of linear layers that follow the model, in order, each with weights of its own.
    """

    weights: tuple[str, ...]
    subfolder: str = ""
    parts: tuple[str, ...] = ()

    @property
    def patterns(self) -> tuple[str, ...]:
        """Patterns of the names of the weight files, in order of preference, shards included."""
        return tuple(f"{PurePosixPath(name).stem}*{PurePosixPath(name).suffix}" for name in self.weights)


TRANSFORMERS = Layout(("model.safetensors", "pytorch_model.bin"))
OPEN_CLIP = Layout(("open_clip_model.safetensors", "open_clip_pytorch_model.bin"))
"""open_clip's own names for weights and settings. Source: open_clip 3.3.0, its factory and hub modules."""
ADAPTER = Layout(("adapter_model.safetensors", "adapter_model.bin"))
"""A LoRA adapter of peft, whose base model lies elsewhere."""
LAYOUTS = (TRANSFORMERS, OPEN_CLIP, ADAPTER)


def find_layout(folder: Path) -> Layout:
    """Say how a checkpoint lies in its folder, by its texts: on the hub the weights are not there yet.

    Raises:
        CheckpointError: A file that tells it cannot be read, or the folder holds no model that ranks.
    """
    if (folder / ADAPTER_CONFIG).is_file() and not _has_weights(folder, TRANSFORMERS):
        return ADAPTER
    if "model_type" in read_object(folder / "config.json"):
        return replace(TRANSFORMERS, parts=_find_dense(folder / MODULES))
    if (folder / OPEN_CLIP_CONFIG).is_file():
        return OPEN_CLIP
    if (folder / MODULES).is_file():
        return replace(TRANSFORMERS, subfolder=_find_clip(folder / MODULES))
    return TRANSFORMERS


def _has_weights(folder: Path, layout: Layout) -> bool:
    return any((folder / f"{name}{index}").is_file() for name in layout.weights for index in ("", ".index.json"))


def _find_dense(modules: Path) -> tuple[str, ...]:
    """Return the folders of the linear layers among the modules of sentence-transformers."""
    return tuple(path for kind, path in _read_modules(modules) if kind == "Dense" and path)


def _find_clip(modules: Path) -> str:
    """Return the folder of the CLIP model among the modules of sentence-transformers."""
    kinds = []
    for kind, path in _read_modules(modules):
        if kind == "CLIPModel" and path:
            return path
        kinds.append(kind)
    raise CheckpointError(
        f"{modules} describes a model of sentence-transformers made of {', '.join(kinds) or 'nothing'}; of these only "
        "CLIPModel ranks texts and images. Take the checkpoint of a model that this exporter knows"
    )


def _read_modules(modules: Path) -> Iterator[tuple[str, str]]:
    """Yield each module's class and its folder; empty for one that is no folder of the checkpoint's own."""
    for module in read_array(modules):
        path = str(module.get("path", ""))
        yield str(module.get("type", "")).rpartition(".")[2], path if PurePosixPath(path).name == path else ""

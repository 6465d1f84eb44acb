"""Where a checkpoint is: bundled, in a folder or on the hub; and what lies there."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from lychee_export.checkpoint import open_clip
from lychee_export.checkpoint.authors_code import say_in_transformers_terms
from lychee_export.checkpoint.hub import download
from lychee_export.checkpoint.json_files import read_object
from lychee_export.checkpoint.layout import ADAPTER, ADAPTER_CONFIG, OPEN_CLIP, OPEN_CLIP_CONFIG, find_layout
from lychee_export.checkpoint.reading import Reading
from lychee_export.checkpoint.refusals import refuse_unreadable
from lychee_export.checkpoint.source import UNREAD_REVISION, CheckpointSource
from lychee_export.errors import CheckpointError

__all__ = ["find_checkpoint"]

_BUNDLED = Path(__file__).parent / "bundled"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def find_checkpoint(checkpoint: str, reading: Reading | None = None) -> CheckpointSource:
    """Find a checkpoint: a bundled one, a folder, or a model of the hub. Its weights are not touched.

    Args:
        checkpoint: "lychee-mini", a path, or "owner/name".
        reading: How it is found and read. None takes what it says itself.

    Raises:
        CheckpointError: There is no such checkpoint, or its files are not those of a model that can be read.
    """
    reading = reading or Reading()
    model_id, revision, root = _locate(checkpoint, reading.revision)
    layout = find_layout(root)
    for part in (layout.subfolder, *layout.parts):
        if part and revision != UNREAD_REVISION:
            download(model_id, revision, subfolder=part)
    source = CheckpointSource(
        model_id, revision, root / layout.subfolder, {}, weights=False, layout=layout, reading=reading
    )
    if layout is ADAPTER:
        return _with_base(source, reading.base)
    if reading.base is not None:
        raise CheckpointError(
            f"{checkpoint} holds full weights and no {ADAPTER_CONFIG}, so it has no base model; leave --base out"
        )
    if layout is OPEN_CLIP:
        path = source.folder / OPEN_CLIP_CONFIG
        files = open_clip.describe(path, read_object(path))
        return replace(source, files=files, config=files["config.json"])
    path = source.folder / "config.json"
    if not path.is_file():
        raise CheckpointError(f"no checkpoint {model_id!r}: {path} does not exist")
    config = read_object(path)
    written = say_in_transformers_terms(config, str(path))
    refuse_unreadable(written or config, str(path))
    return replace(source, config=written or config, files={"config.json": written} if written else {})


def _locate(checkpoint: str, revision: str | None) -> tuple[str, str, Path]:
    """Return a checkpoint's name, revision and folder."""
    bundled = _BUNDLED / checkpoint.replace("-", "_")
    folder = Path(checkpoint)
    if "/" not in checkpoint and bundled.is_dir():
        model_id, folder = checkpoint, bundled
    elif folder.is_dir():
        model_id = folder.resolve().name
    elif _HUB_ID.fullmatch(checkpoint) and not folder.exists():
        folder = download(checkpoint, revision)
        return checkpoint, folder.name, folder
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
    return model_id, UNREAD_REVISION, folder


def _with_base(source: CheckpointSource, base: str | None) -> CheckpointSource:
    """Find an adapter's base model, and take from it what the adapter's folder lacks."""
    config = read_object(source.folder / ADAPTER_CONFIG)
    kind = config.get("peft_type")
    if kind != "LORA":
        raise CheckpointError(f"{source.folder / ADAPTER_CONFIG}: peft_type is {kind!r}; only LORA can be merged")
    named = config.get("base_model_name_or_path")
    if base is None and not named:
        raise CheckpointError(f"{source.folder / ADAPTER_CONFIG} names no base model; name it with --base")
    wanted = base or str(named)
    try:
        found = find_checkpoint(wanted, Reading(None if base or Path(wanted).is_dir() else config.get("revision")))
    except CheckpointError as error:
        raise CheckpointError(
            f"{source.model_id} is a LoRA adapter, and its base model cannot be read: {error}. Name the folder of "
            f"{named or 'the base model'} with --base"
        ) from error
    return replace(source, base=found, config=found.config)

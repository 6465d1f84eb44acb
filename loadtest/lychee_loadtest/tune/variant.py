"""`configs/<name>.pbtxt`: a model's tuned configuration, with a header that says where its values come from."""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from google.protobuf import text_format
from lychee_client.files import write_atomically
from lychee_server.errors import SettingsError

__all__ = [
    "check_name",
    "check_writable",
    "variant_path",
    "variant_text",
    "whole_view",
    "write_variants",
]

HEADER: Final = "# Written by `lychee tune`"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_WIDTH: Final = 116


def check_name(name: str) -> None:
    """Make sure that a variant may have this name.

    Raises:
        SettingsError: It is no plain file name.
    """
    if not _NAME.fullmatch(name):
        raise SettingsError(
            f"--name is {name!r}; expected letters, digits, dots, dashes and underscores, such as tuned"
        )


def variant_path(folder: Path, name: str) -> Path:
    """Return the variant's file of the model in a folder."""
    return folder / "configs" / f"{name}.pbtxt"


def check_writable(folder: Path, name: str, *, force: bool) -> None:
    """Find out before measuring whether the variant may be written.

    Raises:
        SettingsError: The file exists and this command did not write it, or the folder is not writable.
    """
    path = variant_path(folder, name)
    if path.exists() and not force and not path.read_text(encoding="utf-8", errors="replace").startswith(HEADER):
        raise SettingsError(
            f"{path} exists, and `lychee tune` did not write it; choose another --name, or --force to replace it"
        )
    parent = path.parent if path.parent.exists() else folder
    if not os.access(parent, os.W_OK):
        raise SettingsError(
            f"{parent} is not writable, so {path.name} cannot be written there; correct its permissions"
        )


def variant_text(config: Any, source: str, notes: Sequence[str]) -> str:
    """Write a configuration with its header.

    Args:
        config: The ModelConfig message.
        source: When, where and how the values were found; ends the first sentence.
        notes: More lines, such as the reasons.
    """
    lines = [f"{HEADER} {source}", *notes]
    header = [f"# {part}".rstrip() for line in lines for part in _wrap(line.removeprefix("# "))]
    return "\n".join(header) + "\n" + str(text_format.MessageToString(config))


def _wrap(line: str) -> list[str]:
    return textwrap.wrap(line, _WIDTH, subsequent_indent="  ") or [""]


@contextmanager
def whole_view(repository: Path, name: str, texts: Mapping[str, str]) -> Iterator[Path]:
    """Make a temporary copy of a repository out of links, in which the variants exist already.

    Args:
        repository: The user's repository.
        name: The name of the variant.
        texts: The text of each variant, by model.
    """
    with TemporaryDirectory(prefix="lychee-tune-") as folder:
        view = Path(folder)
        for model in repository.iterdir():
            if not model.is_dir():
                continue
            configs = view / model.name / "configs"
            configs.mkdir(parents=True)
            for entry in model.iterdir():
                if entry.name != configs.name:
                    (configs.parent / entry.name).symlink_to(entry.absolute())
            for entry in (model / configs.name).glob("*.pbtxt"):
                if entry.stem != name or model.name not in texts:
                    (configs / entry.name).symlink_to(entry.absolute())
            if model.name in texts:
                (configs / f"{name}.pbtxt").write_text(texts[model.name], encoding="utf-8")
        yield view


def write_variants(repository: Path, name: str, texts: Mapping[str, str]) -> list[Path]:
    """Write the variants, each atomically; return their files.

    Raises:
        ConfigurationError: A file cannot be written.
    """
    paths = []
    for model, text in texts.items():
        path = variant_path(repository / model, name)
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, text.encode("utf-8"))
        paths.append(path)
    return paths

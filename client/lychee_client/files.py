"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from pathlib import Path

from lychee_client._errors import ConfigurationError


def check_writable(path: Path, *, replace: bool) -> None:
    """Find out before hours of work whether its outcome could be written.

    Args:
        path: The file that is to be written later.
        replace: Whether an existing file may be replaced.

    Raises:
        ConfigurationError: The file exists and may not be replaced, is no plain file, or its folder is missing or not
            writable.
    """
    if path.exists() and not path.is_file():
        raise ConfigurationError(f"{path} is not a plain file; give the name of a file to write")
    if path.exists() and not replace:
        raise ConfigurationError(f"{path} exists already; give another name, or --force to replace it")
    if not path.parent.is_dir():
        raise ConfigurationError(f"the folder {path.parent} does not exist; create it, or give another name")
    if not os.access(path.parent, os.W_OK):
        raise ConfigurationError(f"the folder {path.parent} is not writable; give another name")


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file in one step: whatever goes wrong, `path` holds either its old content or all of the new.

    Args:
        path: The file to write. An existing one is replaced, and its permissions are kept.
        data: The whole content of the file.

    Raises:
        ConfigurationError: The file cannot be written.
    """
    target = path.resolve()  # a symbolic link stays one
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            shutil.copymode(target, temporary)
        os.replace(temporary, target)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise ConfigurationError(
            f"{path} cannot be written: {error.strerror or error}; check the folder's permissions and free space"
        ) from error

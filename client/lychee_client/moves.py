"""Moves of files and folders of which all happen or none: after an error, Ctrl-C, and the death of the process alike.

A list of the moves is written down before the first one and removed after the last one. While it is there, what has
been moved can be moved back, by whoever comes next: each move shows by what is in its two places whether it happened.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

__all__ = ["move_all", "undo_moves"]


def move_all(record: Path, moves: Sequence[tuple[Path, Path]]) -> None:
    """Make moves within one file system, in their order.

    Args:
        record: The file that lists them meanwhile; paths in it are relative to its folder.
        moves: From where, to where. What is moved exists, and its new place is free once those before it are made.

    Raises:
        OSError: One cannot be made; all is as it was.
    """
    listed = [[os.path.relpath(place, record.parent) for place in move] for move in moves]
    draft = record.with_name(f"{record.name}.draft")
    try:
        with draft.open("w", encoding="utf-8") as file:
            json.dump(listed, file)
            file.flush()
            os.fsync(file.fileno())
        os.rename(draft, record)
        for source, target in moves:
            os.rename(source, target)
    except BaseException:  # also KeyboardInterrupt
        draft.unlink(missing_ok=True)
        undo_moves(record)
        raise
    record.unlink()


def undo_moves(record: Path) -> None:
    """Move back what a list says has been moved; nothing if there is no list.

    Raises:
        OSError: Something cannot be moved back; the list stays.
    """
    try:
        moves = json.loads(record.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return
    for names in reversed(moves):
        source, target = (record.parent / name for name in names)
        if os.path.lexists(target) and not os.path.lexists(source):
            os.rename(target, source)
    record.unlink()

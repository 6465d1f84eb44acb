"""The manifest of a run: what it scores with what, and, when it is complete, what came of it."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any, Final

from lychee_bulk.columns import Columns
from lychee_bulk.errors import OutputError
from lychee_bulk.options import ScoringOptions, ServedModel
from lychee_bulk.storage import Folder, InputFile
from lychee_bulk.units import UnitSize

NAME: Final = "_manifest.json"  # what begins with an underscore is no data to those who read the folder as Parquet
SUCCESS: Final = "_SUCCESS"
FORMAT: Final = 1
PACKAGES: Final = ("lychee-rerank-bulk", "lychee-rerank-client", "ray", "pyarrow")
_SAME: Final = {
    "files": "the input",
    "columns": "the columns",
    "keep_columns": "--keep-columns",
    "scoring": "the instruction, the policy or --max-img-size",
    "model": "the model",
}
"""What two runs on one output have in common, and what each is called."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run scores, but for the model.

    Attributes:
        address: The input, as it was given.
        files: The files of the input.
        columns: Which columns hold what.
        kept: The columns that go into the output.
        size: When a unit is full.
        options: What to ask of whom.
    """

    address: str
    files: tuple[InputFile, ...]
    columns: Columns
    kept: tuple[str, ...]
    size: UnitSize
    options: ScoringOptions

    def to_json(self, model: ServedModel | None) -> dict[str, Any]:
        """Return the manifest of a run that is not complete."""
        return {
            "format": FORMAT,
            "complete": False,
            "input": self.address,
            "files": [
                {"name": file.name, "size_bytes": file.size_bytes, "mark": file.mark, "kind": file.kind}
                for file in self.files
            ],
            "columns": {key: value for key, value in asdict(self.columns).items() if value is not None},
            "keep_columns": list(self.kept),
            "unit": asdict(self.size),
            "scoring": self.options.to_json(),
            "model": None if model is None else model.to_json(),
            "versions": {**{name: version(name) for name in PACKAGES}, "python": platform.python_version()},
        }


def read_manifest(folder: Folder) -> dict[str, Any] | None:
    """Return the manifest in a folder, or None if there is none.

    Raises:
        OutputError: It is none of this program's.
    """
    content = folder.read(NAME)
    if content is None:
        return None
    try:
        value = json.loads(content)
        known: bool = value["format"] == FORMAT
    except (ValueError, KeyError, TypeError):
        known = False
    if not known:
        raise OutputError(
            f"{folder.address}/{NAME} is not a manifest of this version; give another folder, or --overwrite"
        )
    result: dict[str, Any] = value
    return result


def write_manifest(folder: Folder, manifest: Mapping[str, Any]) -> None:
    """Write the manifest, in one step."""
    folder.write(NAME, (json.dumps(manifest, ensure_ascii=False, indent=2) + "\n").encode("utf-8", "replace"))


def check_same(folder: Folder, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Make sure that a run goes on where another one ended; without a model, that one is not compared.

    Raises:
        OutputError: They score other rows, or in another way.
    """
    plain = json.loads(json.dumps(wanted))
    for key, what in _SAME.items():
        if (key == "model" and wanted[key] is None) or found.get(key) == plain[key]:
            continue
        raise OutputError(
            f"{folder.address} holds a run in which {what} differed: {_shorten(found.get(key))} there, and "
            f"{_shorten(plain[key])} now; give another folder, or --overwrite to score all anew"
        )


def _shorten(value: object) -> str:
    if isinstance(value, dict) and "model_id" in value:
        value = {key: value.get(key) for key in ("model_id", "revision", "precision", "version", "instruction")}
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 300 else f"{text[:297]}..."

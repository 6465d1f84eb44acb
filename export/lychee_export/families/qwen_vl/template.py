"""The prompt files: how each published reranker words a pair and reads the answer."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from lychee_export.errors import CheckpointError

__all__ = ["Template", "find_template", "templates"]

_PROMPTS = Path(__file__).parent / "prompts"
_SLOT = re.compile(r"\{(instruction|query|document)\}")


@dataclass(frozen=True)
class Template:
    """One file of ``prompts/``.

    Args:
        source: The place where the words and numbers come from.
        architectures: The values of ``architectures`` in config.json that it belongs to.
        checkpoints: The names that users know.
        labels: The answers whose logits are compared, the positive one first. None where the model has a score head.
        logit_bias: The constant that is added to the logit before the sigmoid.
        max_tokens: The length of the longest sequence that the model was trained with, if that is known.
        min_pixels: The fewest pixels of an image. None takes what preprocessor_config.json says.
        max_pixels: The most pixels of an image; preprocessor_config.json may say fewer.
        instruction: The default instruction; None where the prompt has none.
        prompt: The prompt, which goes into the manifest as it is.
    """

    source: str
    architectures: tuple[str, ...]
    checkpoints: tuple[str, ...]
    labels: tuple[str, str] | None
    logit_bias: float
    max_tokens: int | None
    min_pixels: int | None
    max_pixels: int | None
    instruction: str | None
    prompt: Mapping[str, Any]

    def reads(self, query: str, document: str) -> bool:
        """Tell whether the model reads a pair of these modalities: "text", "image" or "image_text"."""
        return query in self.prompt["queries"] and document in self.prompt["documents"]

    @property
    def document_first(self) -> bool:
        """Whether the document, and with it its image, stands before the query."""
        text: str = self.prompt["template"]
        return text.index("{document}") < text.index("{query}")

    def fill(self, query: str, document: str) -> str:
        """Word a pair with the default instruction; each part is its image, if it has one, then its text."""
        parts = {"instruction": self.instruction or "", "query": query, "document": document}
        return _SLOT.sub(lambda slot: parts[slot[1]], self.prompt["template"])


@cache
def templates() -> tuple[Template, ...]:
    """Read all prompt files."""
    return tuple(_read(path) for path in sorted(_PROMPTS.glob("*.json")))


def find_template(config: Mapping[str, Any]) -> Template:
    """Choose the template by the first entry of ``architectures`` in config.json.

    Raises:
        CheckpointError: config.json names no architecture, or no template belongs to it.
    """
    architecture = next(iter(config.get("architectures") or ()), None)
    for template in templates():
        if architecture in template.architectures:
            return template
    known = "; ".join(
        f"{', '.join(template.architectures)} (such as {', '.join(template.checkpoints)})" for template in templates()
    )
    raise CheckpointError(f"config.json: architectures[0] is {architecture!r}; the known rerankers are {known}")


def _read(path: Path) -> Template:
    content = json.loads(path.read_text(encoding="utf-8"))
    labels = content["labels"]
    return Template(
        source=content["source"],
        architectures=tuple(content["architectures"]),
        checkpoints=tuple(content["checkpoints"]),
        labels=None if labels is None else (labels["positive"], labels["negative"]),
        logit_bias=content["logit_bias"],
        max_tokens=content["max_tokens"],
        min_pixels=content["min_pixels"],
        max_pixels=content["max_pixels"],
        instruction=content["instruction"],
        prompt=content["prompt"],
    )

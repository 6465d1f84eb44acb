"""The prompt files: how each published reranker words a pair and reads the answer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
from lychee_client.manifest import PromptSpec
from msgspec import Struct

from lychee_export.errors import CheckpointError

__all__ = ["Template", "find_template", "templates"]

_PROMPTS = Path(__file__).parent / "prompts"
_SLOT = re.compile(r"\{(instruction|query|document)\}")


class Labels(Struct, frozen=True, forbid_unknown_fields=True):
    """The answers whose logits are compared."""

    positive: str
    negative: str


class Template(Struct, frozen=True, forbid_unknown_fields=True):
    """One file of ``prompts/``.

    Args:
        source: The place where the words and numbers come from.
        architectures: The values of ``architectures`` in config.json that it belongs to.
        checkpoints: The names that users know.
        labels: The answers whose logits are compared. None where the model has a score head.
        logit_bias: The constant that is added to the logit before the sigmoid.
        max_tokens: The length of the longest sequence that the model was trained with or its code reads, if that is
            known.
        min_pixels: The fewest pixels of an image. None takes what preprocessor_config.json says.
        max_pixels: The most pixels of an image; preprocessor_config.json may say fewer.
        instruction: The default instruction; None where the prompt has none.
        prompt: The prompt, which goes into the manifest as it is.
    """

    source: str
    architectures: tuple[str, ...]
    checkpoints: tuple[str, ...]
    labels: Labels | None
    logit_bias: float
    max_tokens: int | None
    min_pixels: int | None
    max_pixels: int | None
    instruction: str | None
    prompt: PromptSpec

    def reads(self, query: str, document: str) -> bool:
        """Tell whether the model reads a pair of these modalities: "text", "image" or "image_text"."""
        return query in self.prompt.queries and document in self.prompt.documents

    def fill(self, query: str, document: str) -> str:
        """Word a pair with the default instruction; each part is its image, if it has one, then its text."""
        parts = {"instruction": self.instruction or "", "query": query, "document": document}
        return _SLOT.sub(lambda slot: parts[slot[1]], self.prompt.template)


@cache
def templates() -> tuple[Template, ...]:
    """Read all prompt files."""
    return tuple(msgspec.json.decode(path.read_bytes(), type=Template) for path in sorted(_PROMPTS.glob("*.json")))


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

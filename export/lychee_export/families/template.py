"""The prompt files: how each published reranker words a pair and reads the answer."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import msgspec
from lychee_client.manifest import PromptSpec
from msgspec import Struct, structs

from lychee_export.checkpoint.source import CheckpointSource
from lychee_export.errors import CheckpointError

__all__ = ["Labels", "Template", "find_template", "name_template", "templates"]

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
        names: What the name of a checkpoint, or of what it was made from, says where it belongs to it, in lower case
            with hyphens. Empty where no other model has these architectures.
        checkpoints: The names that users know.
        labels: The answers whose logits are compared. None where the model has a score head.
        logit_bias: The constant that is added to the logit before the sigmoid.
        max_tokens: The length of the longest sequence that the model was trained with or its code reads, if that is
            known.
        min_pixels: The fewest pixels of an image. None takes what preprocessor_config.json says.
        max_pixels: The most pixels of an image; preprocessor_config.json may say fewer.
        instruction: The default instruction; None where the prompt has none.
        prompt: The prompt, which goes into the manifest as it is, but for its suffix.
        suffix: What follows the prompt, whose tokens become the suffix in the manifest: they stay whole where the
            document before them is cut. Empty where the prompt names its own.
    """

    source: str
    architectures: tuple[str, ...]
    names: tuple[str, ...]
    checkpoints: tuple[str, ...]
    labels: Labels | None
    logit_bias: float
    max_tokens: int | None
    min_pixels: int | None
    max_pixels: int | None
    instruction: str | None
    prompt: PromptSpec
    suffix: str = ""

    @property
    def reads_images(self) -> bool:
        """Whether a part may be an image."""
        return bool(self.prompt.image)

    def reads(self, query: str, document: str) -> bool:
        """Tell whether the model reads a pair of these modalities: "text", "image" or "image_text"."""
        return query in self.prompt.queries and document in self.prompt.documents

    def fill(self, query: str, document: str) -> str:
        """Word a pair with the default instruction; each part is its image, if it has one, then its text."""
        parts = {"instruction": self.instruction or "", "query": query, "document": document}
        return _SLOT.sub(lambda slot: parts[slot[1]], self.prompt.template) + self.suffix


@cache
def templates() -> dict[str, Template]:
    """Read all prompt files, by their names without the ending."""
    return {
        path.stem: msgspec.json.decode(path.read_bytes(), type=Template) for path in sorted(_PROMPTS.glob("*.json"))
    }


def name_template(prompt: PromptSpec | None) -> str | None:
    """Name the template that a manifest's prompt came from; None if it came from none of them."""
    if prompt is None:
        return None
    plain = structs.replace(prompt, suffix_token_ids=())
    return next(
        (
            name
            for name, template in templates().items()
            if structs.replace(template.prompt, suffix_token_ids=()) == plain
        ),
        None,
    )


def find_template(source: CheckpointSource) -> Template:
    """Take the template that the user named, else the one that the checkpoint's architecture and names say.

    The architecture alone says it for models with a class of their own. Others share theirs with models that answer
    questions and do not rank. An instruction that the user gave stands in the place of the template's.

    Raises:
        CheckpointError: There is no such template, none belongs to the architecture, or the names do not tell.
    """
    architecture = next(iter(source.config.get("architectures") or ()), None)
    candidates = {name: each for name, each in templates().items() if architecture in each.architectures}
    if not candidates:
        known = "; ".join(
            f"{', '.join(each.architectures)} (such as {', '.join(each.checkpoints)})" for each in templates().values()
        )
        raise CheckpointError(f"config.json: architectures[0] is {architecture!r}; the known rerankers are {known}")
    template = _find(source, architecture, candidates)
    if source.reading.instruction is None or template.instruction is None:
        return template
    return structs.replace(template, instruction=source.reading.instruction)


def _find(source: CheckpointSource, architecture: str | None, candidates: dict[str, Template]) -> Template:
    if source.reading.template is not None:
        return _choose(source.reading.template, architecture, candidates)
    names = tuple(name.lower().replace("_", "-") for name in source.names)
    for template in candidates.values():
        if not template.names or any(part in name for part in template.names for name in names):
            return template
    raise CheckpointError(
        f"config.json: {architecture} is the class of models that rank and of models that do not, and nothing says "
        f"which reranker {source.model_id} is: looked at {', '.join(dict.fromkeys(source.names))} (its name, "
        "_name_or_path in config.json, base_model in README.md). A wrong prompt gives wrong scores, so say which one "
        f"it was trained with, by --template: {_list(_matching(candidates))}"
    )


def _choose(name: str, architecture: str | None, candidates: dict[str, Template]) -> Template:
    chosen = name.replace("-", "_")
    fitting = _matching(candidates)
    if chosen not in fitting:
        raise CheckpointError(f"no template {name!r} for {architecture}; known are {_list(fitting)}")
    return templates()[chosen]


def _matching(candidates: dict[str, Template]) -> dict[str, Template]:
    """Return the templates that a checkpoint can be scored with: those with a class of its own stay apart.

    Texts alone are one kind and pairs with images another.
    """
    own = {name: each for name, each in candidates.items() if not each.names}
    reads_images = any(each.reads_images for each in candidates.values())
    return own or {name: each for name, each in templates().items() if each.names and each.reads_images == reads_images}


def _list(names: Iterable[str]) -> str:
    return ", ".join(f"{name} ({', '.join(templates()[name].checkpoints)})" for name in names)

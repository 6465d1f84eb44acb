"""How a cross-encoder wants a query and a document put together, as the manifest describes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from lychee_client._errors import ContractError
from lychee_client.manifest.fields import get_strings, get_value

MODALITIES: Final = ("text", "image", "image_text")
# How often each may stand in a template: at least, at most.
_PLACES: Final = {"{query}": (1, 1), "{document}": (0, 1), "{instruction}": (0, 1)}


@dataclass(frozen=True, slots=True)
class PromptSpec:
    """A prompt template and what fits into it.

    Attributes:
        template: The prompt's text. It holds "{query}" once, and "{document}" and "{instruction}" at most once; special
            tokens are written out.
        image: The text that stands for one image, before the text of the query or document; empty where images are no
            text.
        image_token: The token that `image` holds once, and that is repeated once per token of the image; empty where
            `image` is.
        missing_text: The text that stands for a query or document that has neither text nor image.
        suffix_token_ids: The token ids that follow the tokenized prompt.
        queries: The modalities that the model reads as a query.
        documents: The modalities that the model reads as a document.
    """

    template: str
    image: str
    image_token: str
    missing_text: str
    suffix_token_ids: tuple[int, ...]
    queries: tuple[str, ...]
    documents: tuple[str, ...]

    def __post_init__(self) -> None:
        for place, (least, most) in _PLACES.items():
            if not least <= self.template.count(place) <= most:
                expected = "once" if least else "at most once"
                raise ContractError(f"the manifest's prompt.template is {self.template!r}; expected {place} {expected}")
        fits = self.image.count(self.image_token) == 1 if self.image_token else not self.image
        if not fits:
            raise ContractError(
                f"the manifest's prompt.image is {self.image!r}; expected prompt.image_token ({self.image_token!r}) in "
                "it, once, or both empty"
            )
        for name in ("queries", "documents"):
            modalities = getattr(self, name)
            if not modalities or not set(modalities) <= set(MODALITIES):
                raise ContractError(
                    f"the manifest's prompt.{name} is {list(modalities)}; expected some of {', '.join(MODALITIES)}"
                )

    @property
    def has_instruction(self) -> bool:
        """Whether the template has a place for an instruction."""
        return "{instruction}" in self.template

    @property
    def is_query_first(self) -> bool:
        """Whether the query stands before the document."""
        return "{document}" not in self.template or self.template.index("{query}") < self.template.index("{document}")


def parse_prompt_spec(data: Mapping[str, Any]) -> PromptSpec:
    """Read the manifest's `prompt`.

    Raises:
        ContractError: A key is missing or has a value that cannot be.
    """
    texts = {key: get_value(data, key, str, "prompt.") for key in ("template", "image", "image_token", "missing_text")}
    suffix = get_value(data, "suffix_token_ids", list, "prompt.")
    if not all(isinstance(token_id, int) and not isinstance(token_id, bool) and token_id >= 0 for token_id in suffix):
        raise ContractError(f"the manifest's prompt.suffix_token_ids is {suffix}; expected token ids")
    return PromptSpec(
        **texts,
        suffix_token_ids=tuple(suffix),
        queries=get_strings(data, "queries", "prompt."),
        documents=get_strings(data, "documents", "prompt."),
    )

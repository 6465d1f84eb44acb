"""How a cross-encoder wants a query and a document put together, as the manifest describes it."""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeAlias, get_args

from msgspec import Meta, Struct

from lychee_client.manifest.fields import TokenId

Modality: TypeAlias = Literal["text", "image", "image_text"]
Modalities: TypeAlias = Annotated[tuple[Modality, ...], Meta(min_length=1)]

MODALITIES: Final[tuple[Modality, ...]] = get_args(Modality)
IMAGES_PLACE: Final = "{images}"
# How often each may stand in a template: at least, at most.
_PLACES: Final = {"{query}": (1, 1), "{document}": (0, 1), "{instruction}": (0, 1), IMAGES_PLACE: (0, 1)}


class PromptSpec(Struct, frozen=True):
    """A prompt template and what fits into it.

    Attributes:
        template: The prompt's text. It holds "{query}" once, and "{document}" and "{instruction}" at most once; special
            tokens are written out. It may begin with "{images}": there the document's images stand.
        image: The text that stands for one image, before the text of the query or document unless the template begins
            with the images; empty where images are no text.
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
    suffix_token_ids: tuple[TokenId, ...]
    queries: Modalities
    documents: Modalities

    def __post_init__(self) -> None:
        for place, (least, most) in _PLACES.items():
            if not least <= self.template.count(place) <= most:
                expected = "once" if least else "at most once"
                raise ValueError(f"prompt.template is {self.template!r}; expected {place} {expected}")
        if IMAGES_PLACE in self.template and not self.has_images_first:
            raise ValueError(
                f"prompt.template is {self.template!r}; expected {IMAGES_PLACE} at its beginning or nowhere"
            )
        if self.has_images_first and self.queries != ("text",):
            raise ValueError(
                f"prompt.template begins with {IMAGES_PLACE} and prompt.queries is {list(self.queries)}; expected "
                "texts alone, because only a document's images can stand there"
            )
        fits = self.image.count(self.image_token) == 1 if self.image_token else not self.image
        if not fits:
            raise ValueError(
                f"prompt.image is {self.image!r}; expected prompt.image_token ({self.image_token!r}) in it, once, or "
                "both empty"
            )

    @property
    def has_instruction(self) -> bool:
        """Whether the template has a place for an instruction."""
        return "{instruction}" in self.template

    @property
    def has_images_first(self) -> bool:
        """Whether a document's images stand at the beginning of the prompt, not before its text."""
        return self.template.startswith(IMAGES_PLACE)

    @property
    def is_query_first(self) -> bool:
        """Whether the query stands before the document."""
        return "{document}" not in self.template or self.template.index("{query}") < self.template.index("{document}")

"""The values that fields of the manifest may have."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from msgspec import Meta

Positive: TypeAlias = Annotated[int, Meta(ge=1)]
TokenId: TypeAlias = Annotated[int, Meta(ge=0)]
Score: TypeAlias = Annotated[float, Meta(ge=0, le=1)]
Sizes: TypeAlias = Annotated[tuple[Positive, ...], Meta(min_length=1)]


def check_ascending(name: str, sizes: tuple[int, ...]) -> None:
    """Make sure that each size is larger than the one before.

    Raises:
        ValueError: They are not.
    """
    if list(sizes) != sorted(set(sizes)):
        raise ValueError(f"{name} is {list(sizes)}; expected ascending sizes")

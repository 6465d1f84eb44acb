"""What a user says of a checkpoint beyond its name."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Reading"]


@dataclass(frozen=True)
class Reading:
    """How a checkpoint is found and read; None everywhere takes what the checkpoint itself says.

    Args:
        revision: The branch, tag or commit on the hub. None takes the main branch.
        base: The base model of an adapter, as a folder or a name on the hub. None takes the one that it names.
        template: The name of the prompt, for a checkpoint that does not say how it ranks.
        instruction: The instruction that is used when a caller gives none, for models that read one.
    """

    revision: str | None = None
    base: str | None = None
    template: str | None = None
    instruction: str | None = None

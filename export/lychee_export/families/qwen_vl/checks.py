"""What a checkpoint of a Qwen-VL must say of itself."""

from __future__ import annotations

from typing import Any

from lychee_export.errors import CheckpointError
from lychee_export.families.rotary import CHANGING_ROPE_TYPES

__all__ = ["check_config"]


def check_config(config: Any, tokenizer: Any, image_token: str) -> None:
    """Refuse what the graphs do not compute, and a tokenizer of another checkpoint.

    Args:
        config: The model's configuration.
        tokenizer: The checkpoint's tokenizer.
        image_token: The token that stands for a block of patches in the prompt.

    Raises:
        CheckpointError: There is something of it.
    """
    text = config.text_config
    if any(layer != "full_attention" for layer in getattr(text, "layer_types", None) or ()):
        raise CheckpointError("config.json asks for sliding windows in the language model, which are not supported")
    rope_type = (getattr(text, "rope_parameters", None) or {}).get("rope_type")
    if rope_type in CHANGING_ROPE_TYPES:
        raise CheckpointError(f"config.json asks for rotary positions of type {rope_type!r}, which are not supported")
    token_id = tokenizer.convert_tokens_to_ids(image_token)
    if token_id != config.image_token_id:
        raise CheckpointError(
            f"the tokenizer gives {image_token} the id {token_id}, config.json says image_token_id "
            f"{config.image_token_id}; take both files from one checkpoint"
        )

"""Attention that computes the same bits whatever the padding, also in bfloat16.

OpenVINO's bfloat16 kernels add up the values of 16 keys at a time. Where the number of keys is no multiple of 16, the
last ones are added in another order, and then a text of 22 tokens has one embedding when it is padded to 24 and another
one when it is padded to 32: measured with lychee-mini on AVX512-BF16, its score moved by 0.011. Lengths are multiples
of 8, so eight more keys with a weight of 0 leave the real ones in whole groups.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

from lychee_export.contract.signature import Axis, ModelSignature

__all__ = ["has_varying_length", "padded_keys", "switch_attention"]

_NAME = "lychee_padded_keys"
_EAGER = "eager"
_MORE_KEYS = 8
_MASKED = -1e4
"""Far below any attention score, so that the weight of a key is 0."""


def has_varying_length(signature: ModelSignature) -> bool:
    """Tell whether a model takes inputs of several lengths."""
    return any(isinstance(size, Axis) and len(size.buckets) > 1 for spec in signature.inputs for size in spec.shape)


def padded_keys(module: nn.Module) -> AbstractContextManager[None]:
    """Let the attention layers of transformers within a module pad their keys for a while."""
    return switch_attention(module, _NAME)


@contextmanager
def switch_attention(module: nn.Module, name: str) -> Iterator[None]:
    """Let the attention layers of transformers within a module take another implementation for a while."""
    configs: list[Any] = [part.config for part in module.modules() if hasattr(part, "config")]
    changed = [config for config in configs if getattr(config, "_attn_implementation", None) == _EAGER]
    try:
        for config in changed:
            config._attn_implementation = name
        yield
    finally:
        for config in changed:
            config._attn_implementation = _EAGER


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attend as transformers' eager implementation does, over a few more keys that nobody sees.

    Args:
        module: The attention layer.
        query: The queries, (batch_size, heads, queries, head_dim).
        key: The keys, (batch_size, heads or a divisor of it, keys, head_dim).
        value: The values, like the keys.
        attention_mask: The mask that is added to the scores, (batch_size, 1, queries, keys). None where the keys are an
            image's, of which there are always as many, so that they stay as they are.
        scaling: The factor that the scores are multiplied by. None stands for head_dim ** -0.5.

    Returns:
        (batch_size, queries, heads, head_dim).
    """
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = (part.repeat_interleave(groups, 1) for part in (key, value))
    if attention_mask is not None:
        key, value = (functional.pad(part, (0, 0, 0, _MORE_KEYS)) for part in (key, value))
        attention_mask = functional.pad(attention_mask, (0, _MORE_KEYS), value=_MASKED)
    scores = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if attention_mask is not None:
        scores = scores + attention_mask
    return (torch.softmax(scores, -1) @ value).transpose(1, 2).contiguous(), None


AttentionInterface.register(_NAME, _attend)
AttentionMaskInterface.register(_NAME, eager_mask)

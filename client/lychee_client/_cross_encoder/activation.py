"""What makes scores of logits."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from lychee_client._errors import ConfigurationError

Activation: TypeAlias = Callable[[Any], Any] | str
Scores: TypeAlias = npt.NDArray[np.float32]


def activate(activation_fn: Activation | None, logits: Scores, scores: Scores) -> Scores:
    """Return what the function makes of the logits.

    Args:
        activation_fn: A function of the logits, which it gets as float32, (pairs, 1): a tensor, or an array where the
            program has not imported torch. Or "sigmoid" or "identity", alone or as the last part of a dotted name. None
            is the sigmoid.
        logits: float32, (pairs,).
        scores: float32, (pairs,): the sigmoids of the logits.

    Returns:
        float32, (pairs,).

    Raises:
        ConfigurationError: The name is another one, or the function returns another shape.
    """
    if activation_fn is None:
        return scores
    if isinstance(activation_fn, str):
        known = {"sigmoid": scores, "identity": logits}
        name = activation_fn.rpartition(".")[2].lower()
        if name not in known:
            raise ConfigurationError(f"activation_fn is {activation_fn!r}; expected a function or one of {list(known)}")
        return known[name]
    column = logits[:, None]
    torch = sys.modules.get("torch")  # a function of tensors comes from a program that has imported it
    if torch is None:
        values = np.asarray(activation_fn(column), np.float32)
    else:
        with torch.inference_mode():
            values = torch.as_tensor(activation_fn(torch.from_numpy(column))).float().cpu().numpy()
    if values.size != len(logits):
        raise ConfigurationError(f"activation_fn returned {values.shape} for {column.shape}; expected the same shape")
    return values.reshape(len(logits))


def import_torch() -> Any:
    """Return torch, for those who ask for tensors.

    Raises:
        ConfigurationError: It is not installed.
    """
    try:
        return importlib.import_module("torch")
    except ImportError as error:
        raise ConfigurationError(
            "tensors are asked for, but torch is not installed; install it, or leave convert_to_tensor and "
            "convert_to_numpy out for an array"
        ) from error

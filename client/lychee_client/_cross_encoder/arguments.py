"""Arguments as sentence-transformers names them, and named them once."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar, cast

from lychee_client._errors import LycheeWarning

F = TypeVar("F", bound=Callable[..., Any])

MODEL_ARGUMENTS: Final = frozenset(
    [
        "automodel_args",
        "backend",
        "cache_dir",
        "cache_folder",
        "classifier_dropout",
        "config_args",
        "config_kwargs",
        "device",
        "keep_in_fp32_modules",
        "local_files_only",
        "max_length",
        "model_card_data",
        "model_kwargs",
        "modules",
        "processor_kwargs",
        "revision",
        "token",
        "tokenizer_args",
        "tokenizer_kwargs",
        "trust_remote_code",
    ]
)
"""What loads and places a model: here that is the server's."""
_OLD_NAMES: Final = {"sentences": "inputs", "activation_fct": "activation_fn"}
_WITHOUT_EFFECT: Final = ("apply_softmax", "convert_to_numpy", "convert_to_tensor", "num_workers")


def take_old_names(method: F) -> F:
    """Let a method be called with the names that its arguments had in earlier versions, and with those that went."""

    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        for old, new in _OLD_NAMES.items():
            if old in kwargs:
                kwargs.setdefault(new, kwargs.pop(old))
        gone = [name for name in _WITHOUT_EFFECT if name in kwargs and name not in method.__annotations__]
        warn_ignored(method.__name__, {name: kwargs.pop(name) for name in gone})
        return method(*args, **kwargs)

    return cast(F, call)


def warn_ignored(method: str, arguments: Mapping[str, Any]) -> None:
    """Warn about the arguments that were given and mean nothing here."""
    given = [name for name, value in arguments.items() if value is not None and value is not False]
    if given:
        warn(f"{method} ignores {', '.join(given)}: the model runs on the server, as that was told when it started")


def warn(message: str) -> None:
    """Warn as the client does."""
    warnings.warn(message, LycheeWarning, stacklevel=4)

"""The file that says which models one gateway serves, and what each has of its own of the gateway's settings."""

from __future__ import annotations

import json
import re
import tomllib
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError
from pydantic_settings import BaseSettings

from lychee_server.errors import SettingsError
from lychee_server.gateway.metric_families import ONLY_MODEL
from lychee_server.gateway.settings import GatewaySettings, describe_problem, option_of

# What a model may have of its own; everything else is the gateway's.
PER_MODEL: Final = (
    "triton_url",
    "served_model_names",
    "policy",
    "calibration",
    "max_img_size",
    "timeout_s",
    "max_documents",
    "max_concurrency",
    "max_waiting",
    "health_latency_ms",
)
# What is one model's by its nature, so that no gateway of several can say it for all.
OWN: Final = ("served_model_names", "calibration")
_NAME: Final = re.compile(r"[A-Za-z0-9_][\w.-]{0,63}", re.ASCII)  # part of a file's name, and a label of metrics


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """The models that a gateway serves.

    Attributes:
        settings: The settings of each model by its name, in the order of the file.
        default: The name of the model that answers where a call names none.
        is_several: Whether calls choose among them; False where there is only one.
    """

    settings: Mapping[str, GatewaySettings]
    default: str
    is_several: bool


def read_models(settings: GatewaySettings) -> ModelChoice:
    """Return the models of the settings: those of their file, or the one whose Triton they name.

    Raises:
        SettingsError: The file cannot be read or used; the message names the place.
    """
    if settings.models is None:
        return ModelChoice({ONLY_MODEL: settings}, ONLY_MODEL, is_several=False)
    return check_models(load_models(settings.models), settings, settings.models)


def check_models(content: object, settings: GatewaySettings, path: Path, ignored: Collection[str] = ()) -> ModelChoice:
    """Return the models of a file's content.

    Args:
        content: What stands in the file.
        settings: What holds for all models that say nothing else.
        path: The file.
        ignored: What a model may have besides, for others to read.

    Raises:
        SettingsError: It cannot be used; the message names the place.
    """
    for name in OWN:
        if name in settings.model_fields_set and getattr(settings, name):
            raise SettingsError(
                f"{option_of(name)} is about one model, and {path} names several; give it to one of them in a file of "
                f"models (--models), as {name}"
            )
    try:
        return _read(content, settings, path, ignored)
    except _FileError as error:
        raise SettingsError(f"the models of {path} cannot be used: {error}") from error


def is_name(text: str) -> bool:
    """Tell whether a model can be called so."""
    return _NAME.fullmatch(text) is not None


class _FileError(ValueError):
    """Something in the file cannot be used."""


def load_models(path: Path) -> object:
    """Return what stands in a file of models.

    Raises:
        SettingsError: It cannot be read, or is neither TOML nor JSON.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8"
        raise SettingsError(f"the file of models {path} cannot be read: {reason}; check --models") from error
    try:
        if path.suffix == ".toml":
            return tomllib.loads(text)
        return json.loads(text, object_pairs_hook=_without_repetition)
    except (_FileError, RecursionError, ValueError) as error:
        kind = "TOML" if path.suffix == ".toml" else "JSON (TOML's files end with .toml)"
        raise SettingsError(f"the file of models {path} is not {kind}: {error}; correct it there") from error


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    for name, count in Counter(name for name, _ in pairs).items():
        if count > 1:
            raise _FileError(f"{name!r:.80} stands there {count} times")
    return dict(pairs)


def _read(content: object, settings: GatewaySettings, path: Path, ignored: Collection[str]) -> ModelChoice:
    entries = content.get("models") if isinstance(content, dict) else None
    if not isinstance(content, dict) or not isinstance(entries, dict) or not entries:
        raise _FileError('expected "models", with an entry for each model')
    if unknown := [name for name in content if name not in ("models", "default")]:
        raise _FileError(f"{unknown[0]!r:.80} is not known; expected models and default")
    default = content.get("default", next(iter(entries)))
    if not isinstance(default, str) or default not in entries:
        raise _FileError(f"default is {default!r:.80}; expected one of {', '.join(entries)}")
    models = {name: _read_entry(name, entry, settings, path, ignored) for name, entry in entries.items()}
    _check_names(models)
    if "triton_url" not in ignored:
        _check_urls(models)
    return ModelChoice(models, default, is_several=len(models) > 1)


def _read_entry(
    name: str, entry: object, settings: GatewaySettings, path: Path, ignored: Collection[str]
) -> GatewaySettings:
    """Return the settings of a model: its own, and for the rest the gateway's."""
    if not is_name(name):
        raise _FileError(
            f"the name {name!r:.80} has other characters; expected up to 64 letters, digits, dots, hyphens and "
            "underscores (served_model_names takes others)"
        )
    if not isinstance(entry, dict):
        raise _FileError(f"models.{name} is no table; expected triton_url and what else is its own")
    for given in entry:
        if given in PER_MODEL or given in ignored:
            continue
        if given in GatewaySettings.model_fields:
            raise _FileError(
                f"models.{name}.{given} is a setting of the whole gateway; give it there, as {option_of(given)}"
            )
        raise _FileError(f"models.{name}.{given:.80} is not known; expected {', '.join(PER_MODEL)}")
    own = {key: value for key, value in entry.items() if key not in ignored}
    if isinstance(own.get("calibration"), str):
        own["calibration"] = path.parent / own["calibration"]
    shared = {each: getattr(settings, each) for each in settings.model_fields_set}
    try:
        # Not GatewaySettings itself: its errors speak of options and variables.
        return _ModelSettings(**shared | own)
    except ValidationError as error:
        named = {each: f"models.{name}.{each}" for each in own}
        raise _FileError("; ".join(describe_problem(problem, named) for problem in error.errors())) from error


class _ModelSettings(GatewaySettings):
    """The settings of one model; what is wrong with them is told by whoever reads their file."""

    def __init__(self, **values: Any) -> None:
        BaseSettings.__init__(self, **values)


def _check_names(models: Mapping[str, GatewaySettings]) -> None:
    """Refuse a name that two models have."""
    owners: dict[str, str] = {}
    for model, settings in models.items():
        for name in dict.fromkeys((model, *settings.served_model_names)):
            if name in owners:
                raise _FileError(f"the name {name!r:.80} is one of {owners[name]} and of {model}; expected it once")
            owners[name] = model


def _check_urls(models: Mapping[str, GatewaySettings]) -> None:
    """Refuse two models on one Triton, of which one would be the other."""
    owners: dict[str, str] = {}
    for model, settings in models.items():
        other = owners.setdefault(settings.triton_url, model)
        if other != model:
            raise _FileError(
                f"{other} and {model} are both at {settings.triton_url}, and a Triton serves one model; give each its "
                "own triton_url"
            )

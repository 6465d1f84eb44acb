"""What `lychee load` serves: repositories by their names, and which of the gateway's settings are a model's own."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from lychee_client.repository import read_manifest

from lychee_server import defaults
from lychee_server.errors import RepositoryError, SettingsError
from lychee_server.gateway.models_file import check_models, is_name, load_models
from lychee_server.gateway.settings import GatewaySettings

__all__ = ["Choice", "Chosen", "choose"]

REPOSITORY: Final = "repository"
CONFIG_NAME: Final = "config_name"
TRITON_URL: Final = "triton_url"
SERVED_NAMES: Final = "served_model_names"
_CALIBRATION: Final = "calibration"


@dataclass(frozen=True, slots=True)
class Chosen:
    """One model.

    Attributes:
        name: What callers and commands call it; empty for the only one.
        repository: The folder to serve; None: its Triton is elsewhere, where `own` says.
        config_name: The variant of its configurations.
        own: What it has of its own of the gateway's settings.
    """

    name: str
    repository: Path | None
    config_name: str | None
    own: Mapping[str, Any] = field(default_factory=dict)

    @property
    def log_name(self) -> str:
        """The name of its Triton's log, in the folder of the state."""
        return f"triton.{self.name}.log" if self.name else "triton.log"


@dataclass(frozen=True, slots=True)
class Choice:
    """All models.

    Attributes:
        models: The models, those of this machine and others.
        default: The name of the one that answers where a call names none.
        served_names: Further names of the only model.
        source: The file that names them, or None.
    """

    models: tuple[Chosen, ...]
    default: str = ""
    served_names: tuple[str, ...] = ()
    source: Path | None = None

    @property
    def is_named(self) -> bool:
        """Whether the models have names, so that the gateway gets a file of them."""
        return bool(self.default)

    @property
    def here(self) -> tuple[Chosen, ...]:
        """The models whose Triton is to be started, the default first where it is one of them."""
        served = [model for model in self.models if model.repository is not None]
        return tuple(sorted(served, key=lambda model: model.name != self.default))

    def check(self, settings: GatewaySettings) -> None:
        """See that a gateway with these settings can serve them, wherever their Tritons will be.

        Raises:
            SettingsError: It cannot.
        """
        if self.is_named:
            places = {model.name: f"{defaults.DEFAULT_HOST}:{port}" for port, model in enumerate(self.here, 1)}
            check_models(self._describe(places), settings, self.source or Path("--repository"))

    def write(self, urls: Mapping[str, str]) -> Path:
        """Write the gateway's file of the models.

        Args:
            urls: Host and port of the gRPC endpoint of each one that is served here.

        Raises:
            OSError: It cannot be written.
        """
        path = defaults.state_dir() / "gateway-models.json"
        path.write_text(json.dumps(self._describe(urls), ensure_ascii=False, indent=2), encoding="utf-8")
        return path

    def _describe(self, urls: Mapping[str, str]) -> dict[str, Any]:
        entries = {
            model.name: {**model.own, **({TRITON_URL: urls[model.name]} if model.name in urls else {})}
            for model in self.models
        }
        return {"models": entries, "default": self.default}


def choose(
    given: Sequence[Path], source: Path | None, served_names: Sequence[str], config_name: str | None = None
) -> Choice:
    """Find out what is to be served, and under which names.

    Args:
        given: Folders, or NAME=FOLDER. Of several, each is called as its folder where it has no name.
        source: The file of models, as of `lychee gateway --models`. An entry has `repository`, which counts from the
            file's folder, or `triton_url`; the one that has neither gets the folder that is given.
        served_names: Further names: of the only model, or MODEL=NAME.
        config_name: The variant for all that name none.

    Raises:
        SettingsError: Names or folders collide, or are none.
        RepositoryError: One of several folders holds no export.
    """
    models = [_parse(text, config_name) for text in map(str, given)]
    if source is not None:
        if len(models) > 1:
            raise SettingsError(
                "--repository stands there several times, and --models names a file of models; name the folders in one "
                "of the two"
            )
        choice = _read_file(source, models[0], config_name)
    elif len(models) == 1 and not models[0].name:
        return Choice(tuple(models), served_names=tuple(served_names))
    else:
        named = tuple(model if model.name else _named_as_folder(model) for model in models)
        choice = Choice(named, named[0].name)
    _check(choice)
    return _with_names(choice, served_names)


def _parse(text: str, config_name: str | None) -> Chosen:
    name, sign, folder = text.partition("=")
    if sign and folder and is_name(name) and not Path(text).exists():
        return Chosen(name, Path(folder).absolute(), config_name)
    return Chosen("", Path(text), config_name)


def _named_as_folder(model: Chosen) -> Chosen:
    assert model.repository is not None
    folder = model.repository.absolute()
    if not is_name(folder.name):
        raise SettingsError(
            f"the folder {folder} gives no name for its model (expected letters, digits, dots, hyphens and "
            f"underscores); say --repository NAME={folder}"
        )
    return replace(model, name=folder.name, repository=folder)


def _read_file(source: Path, given: Chosen, config_name: str | None) -> Choice:
    content = load_models(source)
    check_models(content, GatewaySettings(), source, ignored=(REPOSITORY, CONFIG_NAME, TRITON_URL))
    assert isinstance(content, dict)
    models = []
    for name, entry in content["models"].items():
        own = {key: value for key, value in entry.items() if key not in (REPOSITORY, CONFIG_NAME)}
        if isinstance(own.get(_CALIBRATION), str):
            own[_CALIBRATION] = str((source.parent / own[_CALIBRATION]).absolute())
        folder, variant = (_read_text(entry, key, name, source) for key in (REPOSITORY, CONFIG_NAME))
        if folder is not None and TRITON_URL in own:
            raise SettingsError(
                f"{source}: models.{name} has {REPOSITORY}, which is served here, and {TRITON_URL}, which is served "
                "elsewhere; expected one of them"
            )
        place = None if TRITON_URL in own else given.repository if folder is None else source.parent / folder
        models.append(Chosen(name, None if place is None else place.absolute(), variant or config_name, own))
    return Choice(tuple(models), content.get("default", models[0].name), source=source)


def _read_text(entry: Mapping[str, Any], key: str, name: str, source: Path) -> str | None:
    value = entry.get(key)
    if value is not None and (not isinstance(value, str) or not value):
        raise SettingsError(f"{source}: models.{name}.{key} is {value!r:.80}; expected a text")
    return value


def _check(choice: Choice) -> None:
    if not choice.here:
        raise SettingsError(
            f"{choice.source}: every model has a {TRITON_URL}, and none is left to be served here; start the gateway "
            "alone with `lychee gateway --models`"
        )
    names: set[str] = set()
    folders: dict[Path, str] = {}
    for model in choice.here:
        assert model.repository is not None
        if model.name in names:
            raise SettingsError(
                f"two models are called {model.name!r}; give one another name with --repository NAME={model.repository}"
            )
        names.add(model.name)
        other = folders.setdefault(model.repository.resolve(), model.name)
        if other != model.name:
            raise SettingsError(f"{other} and {model.name} are both {model.repository}; expected a folder for each")
        if read_manifest(model.repository) is None:
            raise RepositoryError(
                f"{model.repository} holds no export for the model {model.name}; run `lychee export CHECKPOINT "
                f"--repository {model.repository}`"
            )


def _with_names(choice: Choice, served_names: Collection[str]) -> Choice:
    """Give models their further names."""
    further: dict[str, list[str]] = {}
    known = [model.name for model in choice.models]
    for text in served_names:
        name, sign, served = text.partition("=")
        if not sign or not served or name not in known:
            raise SettingsError(
                f"--served-model-name is {text!r:.80}; expected MODEL=NAME, with several models: MODEL is one of "
                f"{', '.join(known)}"
            )
        further.setdefault(name, []).append(served)
    models = tuple(
        replace(model, own={**model.own, SERVED_NAMES: [*model.own.get(SERVED_NAMES, ()), *further[model.name]]})
        if model.name in further
        else model
        for model in choice.models
    )
    return replace(choice, models=models)

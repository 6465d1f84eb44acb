"""The models of a gateway, each with a service of its own, and which of them a call is for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import suppress

from lychee_client import EmbeddingCache, LycheeError, Manifest, ModelNotReadyError
from lychee_client.served_models import describe_manifest

from lychee_server.errors import SettingsError
from lychee_server.gateway.call_notes import current_notes
from lychee_server.gateway.errors import RequestValueError
from lychee_server.gateway.excerpts import quote
from lychee_server.gateway.health import START_WAIT_S
from lychee_server.gateway.metrics import ONLY_MODEL, Metrics
from lychee_server.gateway.models_file import read_models
from lychee_server.gateway.own_calibration import warn_of_others_calibration
from lychee_server.gateway.service import Service
from lychee_server.gateway.settings import GatewaySettings
from lychee_server.gateway.unknown_names import UnknownNames


class ModelServices:
    """The services of all models behind one gateway.

    With one model every name of a call is taken, as the settings say. With several a call names one of them, or none
    and gets the default. A model's names are the one of the file, its `served_model_names`, and, while no other model
    has the same, the id that its manifest tells, and the last part of that.

    Args:
        services: A service for each model by its name, all with the same metrics.
        default: The name of the model that answers where a call names none.
        is_several: Whether calls choose.

    Attributes:
        services: The services that were given.
        is_several: Whether calls choose.
        metrics: The metrics of the gateway.
    """

    def __init__(self, services: Mapping[str, Service], default: str, *, is_several: bool = True) -> None:
        self.services = services
        self.is_several = is_several
        self._default = default
        self.metrics: Metrics = services[default].metrics
        assert all(service.metrics is self.metrics for service in services.values()), "share the metrics"

    @classmethod
    def of(cls, service: Service) -> ModelServices:
        """Return the services of a gateway of one model."""
        return cls({service.name: service}, service.name, is_several=False)

    @classmethod
    def load(cls, settings: GatewaySettings, cache: EmbeddingCache | None, metrics: Metrics) -> ModelServices:
        """Make a service for each model of the settings.

        Args:
            settings: The settings of the gateway.
            cache: What all models share: its keys tell models apart.
            metrics: What all models share.

        Raises:
            SettingsError: The file of the models, or a setting of one of them, cannot be used.
        """
        choice = read_models(settings)
        if choice.is_several:
            warn_of_others_calibration()
        services = {}
        for name, own in choice.settings.items():
            try:
                services[name] = Service(
                    own, name=name, is_one_of_several=choice.is_several, cache=cache, metrics=metrics
                )
            except SettingsError as error:
                if not choice.is_several:
                    raise
                raise SettingsError(f"the model {name} of {settings.models}: {error}") from error
        return cls(services, choice.default, is_several=choice.is_several)

    @property
    def default(self) -> Service:
        """The service of the model that answers where a call names none."""
        return self.services[self._default]

    def __iter__(self) -> Iterator[Service]:
        """Yield the services, the default first."""
        yield self.default
        yield from (service for name, service in self.services.items() if name != self._default)

    def named(self, name: str) -> Service | None:
        """Return the service of the model that the file of models calls so, or None."""
        for service in self.services.values():
            if name == service.name or name in service.settings.served_model_names:
                return service
        return None

    async def choose(self, name: str | None) -> Service:
        """Return the service of the model that a call names, and note it for the log and the metrics.

        Raises:
            RequestValueError: No model has this name; status 404.
            ModelNotReadyError: None of those that were seen has it, and another one has not been seen yet.
        """
        service = self.default
        if self.is_several and name is not None and name.strip():
            service = await self._find(name)
        current_notes().choose(service.name, is_told=self.is_several)
        return service

    async def check_name(self, service: Service, name: str | None, names: UnknownNames) -> None:
        """Note that a call of the only model has another name for it, or refuse it, as the settings say.

        Raises:
            RequestValueError: It is refused; status 404.
            LycheeError: The server does not say what its model is called.
        """
        if self.is_several or name is None or not name.strip():
            return
        served = self.names(service, await service.manifest())
        if name in served:
            return
        if service.settings.refuse_other_models:
            raise _make_refusal(name, served)
        names.note_model(name, served[0])

    def names(self, service: Service, manifest: Manifest) -> tuple[str, ...]:
        """Return the names of a model, by what it is now; the first is its own where no other model has the same."""
        own = () if service.name == ONLY_MODEL and not self.is_several else (service.name,)
        all_told = describe_manifest(manifest).names
        told = [name for name in all_told if not self.is_several or self._owner(name) is service]
        return tuple(dict.fromkeys((*told, *own, *service.settings.served_model_names)))

    async def start(self) -> None:
        """Begin to watch the servers."""
        for service in self:
            await service.start()

    def begin_stopping(self) -> None:
        """Be no longer ready; calls that come are still answered."""
        for service in self:
            service.begin_stopping()

    async def aclose(self) -> None:
        """Let the calls of all models finish, as long as the settings allow, and close the clients."""
        await asyncio.gather(*(service.aclose() for service in self))

    async def _find(self, name: str) -> Service:
        if (found := self._owner(name)) is not None:
            return found
        unseen = [service for service in self if service.known_manifest is None]
        await asyncio.gather(*(_see(service) for service in unseen))
        if (found := self._owner(name)) is not None:
            return found
        unseen = [service for service in unseen if service.known_manifest is None]
        if unseen:
            waiting = "; ".join(f"{service.name}: {service.health.reason}" for service in unseen)
            raise ModelNotReadyError(f"the model {quote(name)} is not known, and may be one that is away: {waiting}")
        served = [name for service in self for name in self._names_now(service)]
        raise _make_refusal(name, tuple(served))

    def _owner(self, name: str) -> Service | None:
        """Return the service of a model by its name; what the file says goes before what manifests tell."""
        if (named := self.named(name)) is not None:
            return named
        owners = [
            service
            for service in self.services.values()
            if service.known_manifest is not None and name in describe_manifest(service.known_manifest).names
        ]
        return owners[0] if len(owners) == 1 else None

    def _names_now(self, service: Service) -> tuple[str, ...]:
        manifest = service.known_manifest
        return (service.name,) if manifest is None else self.names(service, manifest)


async def _see(service: Service) -> None:
    """Wait a moment for the first check of a model."""
    with suppress(LycheeError):
        await service.health.require(START_WAIT_S)


def _make_refusal(name: str, served: tuple[str, ...]) -> RequestValueError:
    message = f"the model {quote(name)} is not served; expected one of {', '.join(served)}, or leave model out"
    return RequestValueError(message, "model", status=404, kind="model_not_found")

"""The server's model as it is now: fetched with the first call, and again when the server has another one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Final, TypeVar

import msgspec

from lychee_client._assets import CLIENT_ASSETS, fetch_manifest, fetch_tokenizer
from lychee_client._config import ClientConfig, cache_dir
from lychee_client._embedding_cache import EmbeddingCache
from lychee_client._errors import (
    ConfigurationError,
    ConnectionFailedError,
    ModelNotReadyError,
    ServerError,
    ServerOverloadedError,
)
from lychee_client._execution import fetch_executions
from lychee_client._model import Model, load_model
from lychee_client._operations import ask, in_thread
from lychee_client.manifest.manifest import Manifest
from lychee_client.served_models import choose_model, describe_manifest
from lychee_client.transports.base import ControlRequest
from lychee_client.transports.shared_memory import SharedMemoryPool
from lychee_client.triton_key import KEY_VARIABLE

MOST_MODELS: Final = 4  # that one call begins with

T = TypeVar("T")


class CurrentModel:
    """What a client knows about the server's model.

    Every request names the version of the export that the client knows. A server that has another one refuses, so no
    call ever mixes what two models made.

    Args:
        config: The settings of the client.
        shared_memory: The memory for larger tensors, made known to the server with each model; None sends every tensor
            itself.
        embedding_cache: Keeps embeddings, or scores of pairs, between calls; None keeps nothing.
    """

    def __init__(
        self, config: ClientConfig, shared_memory: SharedMemoryPool | None, embedding_cache: EmbeddingCache | None
    ) -> None:
        self._config = config
        self._shared_memory = shared_memory
        self._embedding_cache = embedding_cache
        self._model: Model | None = None

    @property
    def is_known(self) -> bool:
        """Whether the model was fetched."""
        return self._model is not None

    async def load(self) -> Model:
        """Return the model; fetch it the first time.

        Raises:
            LycheeError: The server cannot serve the request.
        """
        if self._model is None:
            model = await self._fetch()
            if self._shared_memory is not None:
                await self._share(self._shared_memory)
            self._model = model
        return self._model

    async def use(self, call: Callable[[Model], Awaitable[T]]) -> T:
        """Carry out a call by one model: all of it again where the server has another one by then.

        Args:
            call: Does everything, its first request included.

        Raises:
            ServerError: It failed, and the server has the same model still; or it has had MOST_MODELS meanwhile.
            LycheeError: It failed.
        """
        for left in reversed(range(MOST_MODELS)):
            model = await self.load()
            try:
                return await call(model)
            except ServerError:
                if not left or not await self.renew(model):
                    raise
        raise AssertionError("the last attempt returns or raises")

    async def renew(self, model: Model) -> bool:
        """Fetch the model again if the server has another one by now; return whether it has.

        A server that cannot tell has the same one.

        Args:
            model: The model that a call began with.

        Raises:
            ContractError: The server's model does not fit this client.
        """
        if self._model is not model:  # another call has noticed
            return True
        version = model.manifest.model_version
        if not version:
            return False
        try:
            if (await ask(ControlRequest("model_ready", CLIENT_ASSETS, model_version=version)))["ready"]:
                return False
            new = await self._fetch()
        except (ConnectionFailedError, ServerError):
            return False
        if new.manifest.model_version == version:
            return False
        if self._shared_memory is not None:
            with suppress(ServerError):  # the same process may have the new model, and know the memory
                await ask(self._shared_memory.registration)
                self._shared_memory.active = True
        self._model = new
        return True

    async def _fetch(self) -> Model:
        manifest = await fetch_manifest()
        for left in reversed(range(MOST_MODELS)):
            try:
                return await self._complete(manifest)
            except (ModelNotReadyError, ServerOverloadedError):  # Triton's word for a version that it has unloaded
                before, manifest = manifest, await fetch_manifest()
                if not left or manifest.version == before.version:
                    raise
        raise AssertionError("the last attempt returns or raises")

    async def _complete(self, manifest: Manifest) -> Model:
        """Fetch what else there is to know of a model.

        Raises:
            ConfigurationError: It is not the one that the client asks for.
            ModelNotReadyError: The server has another one by now, or has not loaded it.
        """
        choose_model([describe_manifest(manifest)], self._config.model, self._config.url)
        tokenizer_json = await fetch_tokenizer(manifest, cache_dir())
        executions = await fetch_executions(manifest)
        # In a thread: reading a tokenizer of 150,000 tokens takes a second.
        manifest = msgspec.structs.replace(manifest, execution=executions)
        return await in_thread(
            partial(load_model, manifest, tokenizer_json, self._config.max_img_size, self._embedding_cache)
        )

    async def _share(self, pool: SharedMemoryPool) -> None:
        if not pool.begin_registration():  # another call does it
            return
        try:
            await ask(pool.registration)
            pool.active = True
        except ServerError as error:
            raise ConfigurationError(
                f"{self._config.url} cannot use this machine's shared memory: {error}; expected a server on this host "
                "that may read /dev/shm, started by this user's `lychee load` or with its key in "
                f"{KEY_VARIABLE}. Leave shared_memory out"
            ) from error
        finally:
            pool.end_registration()

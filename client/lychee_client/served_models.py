"""The models that a server offers, and which of them a name means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lychee_client._errors import ConfigurationError
from lychee_client.manifest.manifest import Manifest, ModelIdentity


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model that a gateway or a Triton serves.

    Attributes:
        identity: What scores and thresholds belong to.
        names: The names by which a client may ask for it, at least one; the first is the one to use.
        reads_instruction: Whether it reads an instruction.
        default_instruction: The instruction that it reads where none is given.
        max_timeout_s: The most seconds that a call may name; None where the server does not say.
        version: The version of the export; None where it has none, or the server does not say.
        is_default: Whether it answers where a call names no model.
        is_ready: Whether it takes calls now.
    """

    identity: ModelIdentity
    names: tuple[str, ...]
    reads_instruction: bool
    default_instruction: str | None
    max_timeout_s: float | None = None
    version: int | None = None
    is_default: bool = True
    is_ready: bool = True


def describe_manifest(manifest: Manifest) -> ServedModel:
    """Return what a Triton serves; its names are the model's id, and the last part of that."""
    instruction = manifest.instruction
    return ServedModel(
        manifest.identity,
        tuple(dict.fromkeys((manifest.model_id, manifest.model_id.rsplit("/", 1)[-1]))),
        instruction is not None,
        None if instruction is None else instruction.default,
        version=manifest.version,
    )


def find_model(served: Sequence[ServedModel], name: str | None) -> ServedModel | None:
    """Return the model that has a name, or None; without a name the default."""
    if name is None:
        return next((model for model in served if model.is_default), served[0])
    return next((model for model in served if name in model.names), None)


def choose_model(served: Sequence[ServedModel], name: str | None, url: str) -> ServedModel:
    """Return the same.

    Raises:
        ConfigurationError: No model has the name.
    """
    model = find_model(served, name)
    if model is None:
        names = ", ".join(dict.fromkeys(each for model in served for each in model.names))
        raise ConfigurationError(
            f"the client asks for the model {name!r} (model, --model or LYCHEE_MODEL), and {url} serves {names}; name "
            "one of these, or leave model out"
        )
    return model

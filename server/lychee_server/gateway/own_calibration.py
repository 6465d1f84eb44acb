"""The calibration that a gateway was given while it runs: checked, in effect at once, and kept for its next start."""

from __future__ import annotations

import asyncio
import logging
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal, TypeAlias

from lychee_client import Calibration, ConfigurationError, Manifest, Policy
from lychee_client.files import write_atomically
from lychee_client.json_object import parse_object

from lychee_server import defaults
from lychee_server.errors import FolderError
from lychee_server.gateway.errors import RequestValueError
from lychee_server.gateway.request_check import is_loopback
from lychee_server.gateway.settings import GatewaySettings

FILE: Final = "gateway-calibration.json"
CALIBRATION_POLICY: Final = "calibration"
_IDENTITY: Final = ("model_id", "revision", "precision")

Source: TypeAlias = Literal["settings", "put"]

_logger = logging.getLogger(__name__)


class OwnCalibration:
    """What decides where a call names no policy: the settings' choice, or a calibration that was put in its place.

    Args:
        settings: The settings of the gateway. A policy or calibration that they name goes before a kept one.
        chosen: What the settings choose.
        model: The name of the model among several, each of which keeps its own; None where there is one.

    Attributes:
        policy: What decides now.
        source: Where it comes from: "settings", or "put" for a calibration that this gateway was given.
        since: Since when it decides: UTC.
    """

    def __init__(self, settings: GatewaySettings, chosen: str | Calibration, *, model: str | None = None) -> None:
        self._file = FILE if model is None else f"gateway-calibration.{model}.json"
        self._of = "" if model is None else f" for the model {model}"
        self._settings = settings
        self._chosen = chosen
        self._lock = asyncio.Lock()
        self.is_explicit = bool({"policy", "calibration"} & settings.model_fields_set)
        self.policy = chosen
        self.source: Source = "settings"
        self.since = datetime.now(UTC)
        if not self.is_explicit:
            self._recall()

    @property
    def name(self) -> str:
        """The name of what decides now."""
        return name_of(self.policy)

    @property
    def path(self) -> Path:
        """The file that keeps it."""
        return defaults.state_dir() / self._file

    def check_allowed(self) -> None:
        """See that not everyone who reaches the gateway may change what it decides.

        Raises:
            RequestValueError: It has no keys and listens on more than the loopback.
        """
        settings = self._settings
        if settings.api_keys or settings.api_keys_file is not None or is_loopback(settings.host):
            return
        raise RequestValueError(
            f"this gateway listens on {settings.host} and has no API keys, so everyone who reaches it could change "
            "what it decides; start it with --api-keys-file or --host 127.0.0.1, or name the file with --calibration",
            "calibration",
            status=403,
            kind="forbidden",
        )

    async def take(self, content: bytes, manifest: Manifest) -> None:
        """Have a calibration decide from now on, and after the next start.

        Args:
            content: What `lychee calibrate` or the page wrote.
            manifest: The served model.

        Raises:
            RequestValueError: It is no calibration, not one for the served model, or cannot be kept.
        """
        self.check_allowed()
        calibration = _parse(content)
        _check_model(calibration, manifest)
        async with self._lock:
            try:
                await asyncio.to_thread(self._keep, calibration)
            except (ConfigurationError, FolderError) as error:
                raise RequestValueError(str(error), "calibration", status=507, kind="not_kept") from error
            self._decide(calibration, "put")
        _logger.warning(
            "the calibration for %s decides now%s, from %g on", calibration.target, self._of, calibration.threshold
        )

    async def drop(self) -> None:
        """Go back to what the settings choose.

        Raises:
            RequestValueError: The kept calibration cannot be removed.
        """
        self.check_allowed()
        async with self._lock:
            try:
                self.path.unlink(missing_ok=True)
            except OSError as error:
                message = f"{self.path.name} cannot be removed from the state folder: {error.strerror or error}"
                raise RequestValueError(message, "calibration", status=507, kind="not_kept") from error
            if self.source != "settings":
                self._decide(self._chosen, "settings")
                _logger.warning("the settings' policy decides again%s", self._of)

    def warnings(self, manifest: Manifest) -> tuple[str, ...]:
        """Say what to know about what decides now: what does not fit the model, and what will end it."""
        if not isinstance(self.policy, Calibration):
            return ()
        default = None if manifest.instruction is None else manifest.instruction.default
        warned = [f"the calibration may not fit: {each}" for each in self.policy.mismatches(manifest.identity, default)]
        if self.source == "put" and self.is_explicit:
            warned.append("the gateway was started with --policy or --calibration, which decides again after a restart")
        return tuple(warned)

    def _decide(self, policy: str | Calibration, source: Source) -> None:
        self.policy, self.source, self.since = policy, source, datetime.now(UTC)

    def _keep(self, calibration: Calibration) -> None:
        defaults.make_folder(self.path.parent, "LYCHEE_STATE_DIR")
        write_atomically(self.path, calibration.to_bytes())

    def _recall(self) -> None:
        """Take what an earlier run kept; what cannot be read is told and left alone."""
        try:
            kept_at = os.stat(self.path).st_mtime
            self.policy = Calibration.load(self.path)
        except FileNotFoundError:
            return
        except (OSError, ConfigurationError) as error:
            _logger.warning("the kept calibration%s cannot be used (%s); the settings' policy decides", self._of, error)
            return
        self.source, self.since = "put", datetime.fromtimestamp(kept_at, UTC)


def name_of(policy: str | Policy | Calibration) -> str:
    """Return the name of what decides."""
    if isinstance(policy, Calibration):
        return CALIBRATION_POLICY
    return policy.name if isinstance(policy, Policy) else policy


def _parse(content: bytes) -> Calibration:
    try:
        return parse_object(content.decode("utf-8-sig"), Calibration)
    except (ConfigurationError, UnicodeDecodeError) as error:
        message = f"the body is no calibration: {error}; send the file that `lychee calibrate` or the page wrote"
        raise RequestValueError(message, "calibration") from error


def _check_model(calibration: Calibration, manifest: Manifest) -> None:
    """Refuse a threshold on the scores of another model; what executes it makes a warning only."""
    served = manifest.identity
    differences = [
        f"{name} {getattr(calibration.model, name)!r}, and {getattr(served, name)!r} is served"
        for name in _IDENTITY
        if getattr(calibration.model, name) != getattr(served, name)
    ]
    if (calibration.instruction is None) != (manifest.instruction is None):
        reads = "none" if manifest.instruction is None else "one"
        differences.append(f"the instruction {calibration.instruction!r}, and the served model reads {reads}")
    if differences:
        raise RequestValueError(
            f"the calibration was made for {'; '.join(differences)}; calibrate on the served model",
            "calibration",
            status=409,
            kind="calibration_mismatch",
        )

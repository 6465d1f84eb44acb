"""The export that a Triton serves, wherever it lies, and what executes its models."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from lychee_client.exports import find_export, restore_exports
from lychee_client.repository import read_manifest

from lychee_server import defaults
from lychee_server.execution import Choice, Device, Served, serve
from lychee_server.repository import check_repository, check_variant, describe_variant

__all__ = ["ServedExport"]

_logger = logging.getLogger("lychee_server.supervision")


class ServedExport:
    """The current export of a repository when it is prepared for the first time; from then on, always the same one.

    Args:
        repository: The folder with the models.
        config_name: The variant of the models' configurations; None takes each `config.pbtxt`.
        error_budget: See TritonServer; likewise `device`.
        device: See `error_budget`.

    Attributes:
        version: By which clients tell exports apart; 0 before it is prepared, and for one that has none.
        models: The names of its models; empty before it is prepared.
    """

    def __init__(self, repository: Path, config_name: str | None, error_budget: float, device: Device) -> None:
        self.repository = repository
        self.config_name = config_name
        self.error_budget = error_budget
        self.device = device
        self.version = 0
        self.models: list[str] = []
        self._folder = repository
        self._served: Served | None = None

    @property
    def path(self) -> Path:
        """The repository for Triton, once it is prepared."""
        assert self._served is not None, "call prepare() first"
        return self._served.path

    @property
    def folder(self) -> Path:
        """Where the models lie."""
        return self._folder

    @property
    def choices(self) -> Mapping[str, Choice]:
        """What executes the models that left it open, and why; empty before it is prepared."""
        return {} if self._served is None else self._served.choices

    @property
    def choice_note(self) -> str:
        """How it was chosen what executes the models; empty before that, and if nothing was open."""
        return "" if self._served is None else self._served.note

    @property
    def variant_note(self) -> str:
        """What became of the variant that was asked for, if no model has it; else empty."""
        return describe_variant(self._folder, self.config_name)

    def prepare(self) -> None:
        """Check the files, and choose what executes the models; measuring may take a minute.

        Raises:
            RepositoryError: The repository or a model file is missing, or the variant does not fit its model.
            ConfigurationError: The repository was left half-way between two exports, and cannot be put back.
            DeviceError: The models are to run on a GPU, and none can be used.
        """
        restore_exports(self.repository)
        folder = self._find()
        models = check_repository(folder, self.config_name)
        check_variant(folder, self.config_name)
        self._served = serve(folder, self.config_name, self.error_budget, defaults.usable_cache_dir(), self.device)
        manifest = read_manifest(folder)
        self._folder, self.models, self.version = folder, models, 0 if manifest is None else manifest.version or 0

    def has_moved(self) -> bool:
        """Tell whether it lies elsewhere now, because another export took its place."""
        if not self.version:
            return False
        manifest = read_manifest(self._folder)
        return manifest is None or manifest.version != self.version

    def _find(self) -> Path:
        found = find_export(self.repository, self.version) if self.version else self.repository
        if found is None:
            _logger.warning("export %d is not in %s any more; taking what is there now", self.version, self.repository)
            return self.repository
        return found

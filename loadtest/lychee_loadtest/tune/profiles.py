"""Starting points for hardware that is not at hand: batch sizes from the literature, not measured here.

Source: a guide to tuning lychee-rerank-mm that its users follow; it names neither method nor software versions. Images
get a quarter of the texts' batch, as that guide has it for the RTX 3090: 6 instead of 24.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from lychee_server.errors import SettingsError

from lychee_loadtest.tune.settings import Settings
from lychee_loadtest.tune.workloads import Modality

__all__ = ["ORIGIN", "PROFILES", "HardwareProfile", "find_profile", "profile_settings"]

ORIGIN: Final = "a starting point from the literature, not measured here"
IMAGE_SHARE: Final = 4


@dataclass(frozen=True, slots=True)
class HardwareProfile:
    """Batch sizes for one kind of hardware."""

    hardware: str
    text_batch: int

    @property
    def image_batch(self) -> int:
        """At most a quarter of the texts', and at least 1."""
        return max(1, self.text_batch // IMAGE_SHARE)

    def batch(self, modality: Modality) -> int:
        """Return the batch size of a modality."""
        return self.text_batch if modality == "text" else self.image_batch


PROFILES: Final[Mapping[str, HardwareProfile]] = MappingProxyType(
    {
        "rtx-3060": HardwareProfile("NVIDIA RTX 3060, 12 GB", 8),
        "rtx-3090": HardwareProfile("NVIDIA RTX 3090, 24 GB", 24),
        "a10": HardwareProfile("NVIDIA A10, 24 GB", 32),
        "jetson-orin-8gb": HardwareProfile("NVIDIA Jetson Orin, 8 GB", 4),
    }
)


def find_profile(name: str) -> HardwareProfile:
    """Return the profile of this name.

    Raises:
        SettingsError: There is none.
    """
    if name not in PROFILES:
        raise SettingsError(f"--profile is {name!r}; expected one of {', '.join(PROFILES)}")
    return PROFILES[name]


def profile_settings(profile: HardwareProfile, modality: Modality, current: Settings, largest: int) -> Settings:
    """Return a model's settings with the profile's batch.

    Args:
        profile: One of PROFILES.
        modality: What the model reads, "text" or "image".
        current: What its configuration says now.
        largest: The model's `max_batch_size`, which the batch may not exceed.
    """
    return replace(current, batches=(min(profile.batch(modality), largest),))

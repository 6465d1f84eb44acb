"""What a server says of its model: the manifest, one definition for the export that writes it and all that read it.

May import errors and JSON objects; knows nothing of requests.
"""

from lychee_client.manifest.execution import DEFAULT_ERROR_BUDGET, EXACT_TOLERANCE, UNCHOSEN
from lychee_client.manifest.image_spec import (
    CropSpec,
    ImageSpec,
    PatchSpec,
    Resampling,
    StretchSpec,
    TileSpec,
    TokenImageSpec,
    count_read_tiles,
)
from lychee_client.manifest.late_interaction_spec import LateInteractionSpec, PageInteractionSpec
from lychee_client.manifest.manifest import (
    FORMAT_VERSION,
    CheckpointLimits,
    GoldenInput,
    GoldenPair,
    GoldenPairs,
    InstructionSpec,
    Manifest,
    ModelIdentity,
    ModelSpec,
    TextSpec,
    parse_manifest,
    write_manifest,
)
from lychee_client.manifest.prompt_spec import PromptSpec
from lychee_client.manifest.reading import PAGE, describe_reading

__all__ = [
    "DEFAULT_ERROR_BUDGET",
    "EXACT_TOLERANCE",
    "FORMAT_VERSION",
    "PAGE",
    "UNCHOSEN",
    "CheckpointLimits",
    "CropSpec",
    "GoldenInput",
    "GoldenPair",
    "GoldenPairs",
    "ImageSpec",
    "InstructionSpec",
    "LateInteractionSpec",
    "Manifest",
    "ModelIdentity",
    "ModelSpec",
    "PageInteractionSpec",
    "PatchSpec",
    "PromptSpec",
    "Resampling",
    "StretchSpec",
    "TextSpec",
    "TileSpec",
    "TokenImageSpec",
    "count_read_tiles",
    "describe_reading",
    "parse_manifest",
    "write_manifest",
]

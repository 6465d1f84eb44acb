"""What a server says of its model: the manifest that the export writes, read and checked.

May import errors and JSON objects; knows nothing of requests.
"""

from lychee_client.manifest.execution import DEFAULT_ERROR_BUDGET, EXACT_TOLERANCE, UNCHOSEN
from lychee_client.manifest.image_spec import ImageSpec, PatchSpec
from lychee_client.manifest.manifest import FORMAT_VERSION, Manifest, ModelIdentity, parse_manifest

__all__ = [
    "DEFAULT_ERROR_BUDGET",
    "EXACT_TOLERANCE",
    "FORMAT_VERSION",
    "UNCHOSEN",
    "ImageSpec",
    "Manifest",
    "ModelIdentity",
    "PatchSpec",
    "parse_manifest",
]

"""What `lychee load` says about its options, once it knows the model and what executes it."""

from __future__ import annotations

from collections.abc import Sequence

from lychee_client import Manifest
from lychee_client.manifest import TokenImageSpec
from lychee_client.preprocessing.image_limit import limit_images

from lychee_server.status import ServedModelState


def describe_max_img_size(manifest: Manifest, max_img_size: int) -> str:
    """Say what a lower limit for images saves.

    Raises:
        ConfigurationError: It is below the model's minimum.
    """
    spec, warning = limit_images(manifest, max_img_size)
    if warning is not None:
        return f"--max-img-size: {warning}"
    assert isinstance(spec, TokenImageSpec)
    assert isinstance(manifest.image, TokenImageSpec)
    most, allowed = (each.max_image_tokens for each in (manifest.image, spec))
    return (
        f"--max-img-size: an image has at most {max_img_size} x {max_img_size} pixels and {allowed} tokens instead of "
        f"{manifest.max_img_size} x {manifest.max_img_size} and {most}: up to {1 - allowed / most:.0%} less to compute "
        "for large images, and less detail"
    )


def describe_flash_attn(manifest: Manifest, models: Sequence[ServedModelState]) -> str:
    """Say what `--flash-attn` does for this model on this machine: fused attention is a matter of the export."""
    providers = sorted({model.provider for model in models if model.provider and model.name.endswith("_encoder")})
    where = " and ".join(providers) or "an unknown provider"
    if manifest.flash_attn:
        return f"--flash-attn: {manifest.model_id} was exported with fused attention, which {where} runs"
    why = (
        "on a CPU fused attention saves little"
        if all("CPU" in provider or "OpenVINO" in provider for provider in providers)
        else "fused attention saves GPU memory"
    )
    return (
        f"--flash-attn: no effect. {manifest.model_id} was exported without fused attention, and runs on {where}; "
        f"{why}. `lychee export --flash-attn` writes the fused operators into the model files"
    )

"""Whether a Triton gives the scores that the exporter knew."""

from __future__ import annotations

from lychee_client import LycheeClient, LycheeError, Manifest

from lychee_server.errors import LycheeServerError

__all__ = ["check_golden_pairs"]


def check_golden_pairs(grpc_url: str) -> tuple[Manifest, str]:
    """Replay the pairs whose scores the exporter knew. Return what the server says about its model, and what was found.

    Raises:
        LycheeServerError: The server's scores differ from them, or cannot be had.
    """
    try:
        with LycheeClient(grpc_url, model=None) as client:
            report = client.check_golden_pairs()
            manifest = client.manifest()
    except LycheeError as error:
        raise LycheeServerError(f"The golden pairs could not be scored: {error}") from error
    if not report.passed:
        raise LycheeServerError(
            f"The server's scores are off by {report.max_abs_error:.4g} on the golden pairs; expected at most "
            f"{report.tolerance:g}. The model files are not those that were exported, or this machine computes "
            "something else: run `lychee export` again, or try --error-budget exact."
        )
    return manifest, f"golden pairs: off by {report.max_abs_error:.2g}, at most {report.tolerance:g} allowed"

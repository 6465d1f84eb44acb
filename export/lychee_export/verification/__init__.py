"""Replay a repository's golden pairs: the client's preprocessing, the repository's files, the reference's scores."""

from lychee_export.verification.artifacts import check_artifacts
from lychee_export.verification.comparison import Comparison, PairComparison, compare
from lychee_export.verification.in_process import InProcessTransport, check_golden_pairs_in_process, in_process_client
from lychee_export.verification.reference import reference_scores

__all__ = [
    "Comparison",
    "InProcessTransport",
    "PairComparison",
    "check_artifacts",
    "check_golden_pairs_in_process",
    "compare",
    "in_process_client",
    "reference_scores",
]

"""What `lychee doctor` checks, and how other distributions add to it."""

from lychee_client.checks.check import (
    MACHINE_CHECKS,
    Check,
    CheckContext,
    CheckedServer,
    CheckResult,
    CheckSkipped,
    Verdict,
    contributed_checks,
    existing_folder,
    run_checks,
)

__all__ = [
    "MACHINE_CHECKS",
    "Check",
    "CheckContext",
    "CheckResult",
    "CheckSkipped",
    "CheckedServer",
    "Verdict",
    "contributed_checks",
    "existing_folder",
    "run_checks",
]

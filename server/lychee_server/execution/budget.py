"""How far a score may be from the reference's for the sake of speed."""

from lychee_server.errors import SettingsError

EXACT = 0.0
LARGEST_ERROR_BUDGET = 0.1
_EXACT_NAME = "exact"


def parse_budget(text: str) -> float:
    """Read an error budget: a number, or "exact" for 0, with which every model computes in float32.

    Raises:
        SettingsError: It is neither, or out of range.
    """
    if text.strip().lower() == _EXACT_NAME:
        return EXACT
    try:
        budget = float(text)
    except ValueError:
        budget = -1.0
    if not 0 <= budget <= LARGEST_ERROR_BUDGET:
        raise SettingsError(
            f"the error budget is {text!r}; expected '{_EXACT_NAME}', or a number from 0 to {LARGEST_ERROR_BUDGET:g}: "
            "how far a score may be from the reference's"
        )
    return budget


def format_budget(budget: float) -> str:
    """Write a budget as `parse_budget` reads it."""
    return _EXACT_NAME if budget == EXACT else f"{budget:g}"

"""From labelled pairs to a threshold. Importing this loads none of the extra's libraries."""

from lychee_client.calibration.calibration import Calibration

__all__ = ["Calibration"]

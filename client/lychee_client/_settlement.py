"""What a call asks for beside what the model takes: the instruction and the policy in effect, and what does not fit."""

from __future__ import annotations

from lychee_client.calibration import Calibration
from lychee_client.instructions.lint import lint_instruction
from lychee_client.manifest.manifest import ModelIdentity
from lychee_client.thresholds import Policy


def settle(
    instruction: str | None, default: str | None, policy: str | Policy | Calibration, identity: ModelIdentity
) -> tuple[str | None, list[str]]:
    """Return the instruction in effect, and what does not fit together.

    Args:
        instruction: The instruction that was given; None takes the model's.
        default: The model's own instruction; None where it reads none.
        policy: What decides.
        identity: The model.
    """
    warned = []
    if default is None and instruction is not None:
        warned.append(f"{identity.model_id} reads no instruction; the one given is ignored")
    settled = None if default is None else default if instruction is None else instruction
    if settled is not None and settled != default:
        warned += map(str, lint_instruction(settled))
    mismatches = policy.mismatches(identity, settled) if isinstance(policy, Calibration) else ()
    if mismatches:
        warned.append(f"the calibration may not fit: {'; '.join(mismatches)}; run `lychee calibrate` again")
    return settled, warned

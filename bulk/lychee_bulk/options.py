"""How a run scores: what all its actors are told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

import msgspec
from lychee_client import ConfigurationError
from lychee_client.calibration import Calibration
from lychee_client.instructions.templates import text_problem
from lychee_client.manifest import ModelIdentity
from lychee_client.thresholds import Policy, get_policy
from lychee_client.types import Priority

NODE_IP: Final = "{node_ip}"


@dataclass(frozen=True, slots=True)
class ScoringOptions:
    """What to ask of whom.

    Args:
        url: See `LycheeClient`; `{node_ip}` stands for the address of the actor's node. None takes LYCHEE_URL, then
            localhost:8001: a Triton on each node.
        instruction: What makes a document relevant, where a row does not say it.
        policy: What turns scores into decisions: the name of a policy, a Policy, or a Calibration.
        max_img_size: See `LycheeClient`.
        priority: "bulk" sends little at a time, so that interactive calls overtake it. "interactive" takes less of the
            CPU for a pair, for a server that nobody else uses.
        in_flight: How many calls an actor has under way.
        documents_per_call: The most documents of one call.
        timeout_s: Seconds for one call.
        patience_s: For how many seconds a server may be away before the run ends.
        image_folder: The folder from which relative paths of images go on.
        image_hosts: The hosts from which images are fetched.
    """

    url: str | None = None
    instruction: str | None = None
    policy: str | Policy | Calibration = "balanced"
    max_img_size: int | None = None
    priority: Priority = "bulk"
    in_flight: int = 16
    documents_per_call: int = 64
    timeout_s: float = 300.0
    patience_s: float = 600.0
    image_folder: str = ""
    image_hosts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.policy, Calibration):
            get_policy(self.policy)
        problem = None if self.instruction is None else text_problem(self.instruction)
        if problem is not None:
            raise ConfigurationError(f"the instruction {self.instruction!r} {problem}")
        for name in ("in_flight", "documents_per_call", "timeout_s", "patience_s"):
            if getattr(self, name) <= 0:
                raise ConfigurationError(f"{name} is {getattr(self, name)}; expected a positive number")

    def for_node(self, node_ip: str) -> str | None:
        """Return the URL for an actor on a node."""
        if self.url is None:
            return None
        return self.url.replace(NODE_IP, f"[{node_ip}]" if ":" in node_ip else node_ip)

    def to_json(self) -> dict[str, Any]:
        """Return what decides about scores and decisions, as the manifest holds it."""
        policy = self.policy if isinstance(self.policy, Calibration) else get_policy(self.policy)
        kind: Literal["calibration", "policy"] = "calibration" if isinstance(policy, Calibration) else "policy"
        thresholds = msgspec.to_builtins(policy) if isinstance(policy, Calibration) else asdict(policy)
        return {"instruction": self.instruction, kind: thresholds, "max_img_size": self.max_img_size}


@dataclass(frozen=True, slots=True)
class ServedModel:
    """The model of a run.

    Attributes:
        identity: What scores belong to.
        version: The version of its export; None where that has none.
        instruction: The instruction in effect for rows that have none of their own; None if the model reads none.
        warnings: What the client had to say.
    """

    identity: ModelIdentity
    version: int | None
    instruction: str | None = None
    warnings: tuple[str, ...] = field(default=(), compare=False)

    def to_json(self) -> Mapping[str, Any]:
        """Return what the manifest holds."""
        identity = msgspec.to_builtins(self.identity)
        return {**identity, "version": self.version, "instruction": self.instruction}

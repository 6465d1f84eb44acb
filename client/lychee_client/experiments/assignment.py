"""Who gets which variant of an experiment: computed from the user's key and the experiment's salt, and stored nowhere.

So a user gets the same variant in every process and on every machine.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from lychee_client._errors import ConfigurationError, InvalidInputError

_TOKEN_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class Assignment:
    """A rule that gives every user one variant or none.

    Args:
        name: The name by which the records call the experiment.
        shares: The share of each variant among those who take part, by its name, the control first; together 1.
            Changing them moves users from one variant to another and spoils the experiment.
        salt: What makes this experiment's variants independent of every other experiment's, and the users in the
            records unreadable to those who do not know it.
        traffic_share: The share of all users that take part, above 0 and at most 1. It may be changed while the
            experiment runs: nobody changes sides.

    Raises:
        ConfigurationError: An argument cannot be used.
    """

    name: str
    shares: Mapping[str, float]
    salt: str = field(repr=False)
    traffic_share: float = 1.0

    def __post_init__(self) -> None:
        if not self.name or not self.salt:
            raise ConfigurationError(
                f"the experiment's name is {self.name!r} and its salt has {len(self.salt)} characters; "
                "expected neither to be empty"
            )
        if not 0 < self.traffic_share <= 1:
            raise ConfigurationError(f"traffic_share is {self.traffic_share}; expected above 0 and at most 1")
        if len(self.shares) < 2 or not all(self.shares) or not all(share > 0 for share in self.shares.values()):
            raise ConfigurationError(
                f"experiment {self.name!r} has the shares {dict(self.shares)}; expected two variants or more, each "
                "with a name and a share above 0"
            )
        if not math.isclose(sum(self.shares.values()), 1.0, abs_tol=1e-6):
            raise ConfigurationError(
                f"the shares of experiment {self.name!r} add up to {sum(self.shares.values()):g}; expected 1"
            )
        object.__setattr__(self, "shares", MappingProxyType(dict(self.shares)))

    def variant(self, user_key: str) -> str | None:
        """Return the name of the user's variant, or None for a user who takes no part.

        Args:
            user_key: What stays the same for one user: an account, a cookie.

        Raises:
            InvalidInputError: The key is empty or not a string.
        """
        digest = self._digest("variant", user_key)
        takes_part, side = (int.from_bytes(part, "big") / 2**64 for part in (digest[:8], digest[8:16]))
        if takes_part >= self.traffic_share:
            return None
        control, *others = self.shares
        for variant in reversed(others):
            if side < self.shares[variant]:
                return variant
            side -= self.shares[variant]
        return control

    def is_drawn(self, call_id: str, share: float) -> bool:
        """Say whether a call is one of this share of all calls, whatever its variant.

        Raises:
            InvalidInputError: The id is empty or not a string.
        """
        return int.from_bytes(self._digest("shadow", call_id)[:8], "big") / 2**64 < share

    def pseudonym(self, user_key: str) -> str:
        """Return what stands for the user in the records, 64 hex digits; without the salt, nobody can guess the key.

        Raises:
            InvalidInputError: The key is empty or not a string.
        """
        return self._digest("user", user_key).hex()

    def make_ranking_id(self) -> str:
        """Return an id for one ranking, 32 hex digits, by which what its user does can be told."""
        token = secrets.token_hex(_TOKEN_BYTES)
        return token + self._seal(token)

    def is_ranking_id(self, ranking_id: str) -> bool:
        """Say whether an id was made for this experiment, by whichever process."""
        token, seal = ranking_id[: 2 * _TOKEN_BYTES], ranking_id[2 * _TOKEN_BYTES :]
        return hmac.compare_digest(seal.encode("utf-8", "surrogatepass"), self._seal(token).encode())

    def _seal(self, token: str) -> str:
        return self._digest("ranking", token or "-")[:_TOKEN_BYTES].hex()

    def _digest(self, purpose: str, user_key: str) -> bytes:
        if not isinstance(user_key, str) or not user_key:
            raise InvalidInputError(f"user_key is {user_key!r}; expected a string that is not empty")
        message = f"{purpose}\0{user_key}".encode("utf-8", "surrogatepass")
        return hmac.new(self.salt.encode("utf-8", "surrogatepass"), message, hashlib.sha256).digest()

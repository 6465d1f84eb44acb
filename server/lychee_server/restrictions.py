"""What Triton keeps to our own processes."""

from typing import Final

from lychee_client.triton_key import KEY_HEADER

# What changes the server, opens this machine's memory or writes files; and the index, which tells why a model failed.
RESTRICTED: Final = "model-repository,shared-memory,logging,trace"
_GRPC_PREFIX: Final = "triton-grpc-protocol-"  # Triton puts it before the name by itself


def restrict(key: str) -> list[str]:
    """Return the options of Triton that refuse RESTRICTED to whoever does not send the key."""
    return [
        f"--http-restricted-api={RESTRICTED}:{KEY_HEADER}={key}",
        f"--grpc-restricted-protocol={RESTRICTED}:{KEY_HEADER.removeprefix(_GRPC_PREFIX)}={key}",
    ]

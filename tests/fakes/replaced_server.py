"""A server that is replaced by one with another model, between two requests of a call."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

from lychee_client.transports.base import InferRequest, Request, Transport

from fakes.dual_encoder import FakeTransport


def make_server(version: int | None, weights: int = 0, **changes: Any) -> FakeTransport:
    """Return a server with a model of this version; other weights give other scores."""
    files = {f"{name}/model.onnx": f"{weights:064x}" for name in ("text_encoder", "vision_encoder")}
    plain = FakeTransport()
    tokenizer = json.loads(plain._manifest_json)["artifacts"]["tokenizer"]
    artifacts = {**files, "tokenizer": tokenizer}
    manifest: Mapping[str, Any] = {"artifacts": artifacts, **({"version": version} if version else {}), **changes}
    return FakeTransport(manifest=manifest, weights=weights)


class ReplacedServer:
    """A Transport to whichever of some servers is there.

    Args:
        servers: One after the other, fakes or connections to real ones; one may come again.
        after: How many requests each but the last answers, once `arm` was called.

    Attributes:
        sent: The requests since then, with the place of the server that got each.
    """

    def __init__(self, *servers: Transport, after: int = 0) -> None:
        self.servers = servers
        self.after = after
        self.sent: list[tuple[int, Request]] = []
        self._lock = threading.Lock()
        self._armed = False
        self._current = 0
        self._left = after

    @property
    def models(self) -> list[tuple[int, str]]:
        """The place of the server and the model's name, of every request to a model since `arm`."""
        return [(place, request.model_name) for place, request in self.sent if isinstance(request, InferRequest)]

    @property
    def place(self) -> int:
        """The place of the server that is there."""
        return self._current

    def arm(self) -> None:
        """Begin to count."""
        self._armed = True
        self.sent.clear()

    def send(self, request: Request, timeout_s: float | None) -> Future[Any]:
        """See Transport."""
        with self._lock:
            if self._armed and self._current < len(self.servers) - 1:
                if self._left == 0:
                    self._current += 1
                    self._left = self.after
                self._left -= 1
            place = self._current
            self.sent.append((place, request))
        return self.servers[place].send(request, timeout_s)

    def close(self, farewell: Request | None = None) -> None:
        """See Transport."""
        for server in self.servers:
            server.close()
